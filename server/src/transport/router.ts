import { type ConnectRouter, createContextValues } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Health } from "@strongroom/gen/grpc/health/v1/health_pb";
import { ServerReflection } from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionV1Alpha } from "@strongroom/gen/grpc/reflection/v1alpha/reflection_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { MESSAGE_OVERHEAD_BYTES } from "@strongroom/protocol/limits";
import type { CollectionDeps } from "../app/collections/collections.ts";
import type { SessionDeps } from "../app/sessions/sessions.ts";
import type { Log } from "../app/settings.ts";
import type { VersionDeps } from "../app/versions/versions.ts";
import { type AddressSet, callerAddress } from "../domain/addresses.ts";
import { NO_LIMITS, type RateLimits } from "../domain/rate-limit.ts";
import { authenticationInterceptor } from "./authentication.ts";
import { ADDRESS } from "./call-context.ts";
import { callLogInterceptor } from "./call-log.ts";
import { collectionService } from "./collection-service.ts";
import { healthService } from "./health-service.ts";
import { type Monitoring, withHttpEndpoints } from "./http-endpoints.ts";
import type { RequestHandler } from "./listener.ts";
import type { Metrics } from "./metrics.ts";
import { metricsInterceptor } from "./metrics-interceptor.ts";
import { processBudgets, rateLimitInterceptor } from "./rate-limiting.ts";
import { ReflectionIndex } from "./reflection-index.ts";
import { reflectionServices } from "./reflection-service.ts";
import type { ServingState } from "./serving-state.ts";
import { sessionService } from "./session-service.ts";
import { type UploadServiceDeps, uploadService } from "./upload-service.ts";
import { versionService } from "./version-service.ts";

/** Every service that is served, in this order. */
export const SERVICES = [
  UploadService,
  VersionService,
  CollectionService,
  SessionService,
  Health,
  ServerReflection,
  ServerReflectionV1Alpha,
] as const;

/** What the services need, together. */
export interface RouterDeps extends UploadServiceDeps, VersionDeps, CollectionDeps, SessionDeps {
  readonly log: Log;
  readonly state: ServingState;
  /** Limits of calls from one address; none when left out. */
  readonly rateLimits?: RateLimits | undefined;
  readonly monitoring: Omit<Monitoring, "stopping" | "take">;
  readonly metrics: Metrics | undefined;
  /** Proxies that are believed whom they speak for. */
  readonly trustedProxies: AddressSet;
  /** Ends running calls when the server must not wait any longer. */
  readonly shutdownSignal: AbortSignal;
}

/** The services over Connect, gRPC and gRPC-Web, and the plain HTTP endpoints beside them, as a request handler. */
export function requestHandler(deps: RouterDeps): RequestHandler {
  const names = SERVICES.map((service) => service.typeName);
  const budgets = processBudgets(deps.rateLimits ?? NO_LIMITS);
  const addressOf = ({ socket, headers }: Parameters<RequestHandler>[0]) =>
    // Node joins a header that comes several times.
    callerAddress(socket.remoteAddress ?? "", headers["x-forwarded-for"] as string | undefined, deps.trustedProxies);
  const reflection = reflectionServices(ReflectionIndex.ofContract(), names, deps.state);
  const routes = (router: ConnectRouter) => {
    router
      .service(UploadService, uploadService(deps))
      .service(VersionService, versionService(deps))
      .service(CollectionService, collectionService(deps))
      .service(SessionService, sessionService(deps))
      .service(Health, healthService(deps.state, names))
      .service(ServerReflection, reflection.v1)
      .service(ServerReflectionV1Alpha, reflection.v1alpha);
  };
  const connect = connectNodeAdapter({
    routes,
    interceptors: [
      callLogInterceptor(deps.log),
      ...(deps.metrics === undefined ? [] : [metricsInterceptor(deps.metrics)]),
      rateLimitInterceptor(budgets),
      authenticationInterceptor(deps),
    ],
    readMaxBytes: deps.settings.maxChunkSize + MESSAGE_OVERHEAD_BYTES,
    // Ciphertext does not compress, and compressed requests would be unpacked before they are bounded.
    acceptCompression: [],
    shutdownSignal: deps.shutdownSignal,
    contextValues: (req) => createContextValues().set(ADDRESS, addressOf(req as Parameters<RequestHandler>[0])),
  }) as RequestHandler;
  const take = (req: Parameters<RequestHandler>[0]) => budgets.health.take(addressOf(req));
  return withHttpEndpoints({ ...deps.monitoring, stopping: () => deps.state.stopping, take }, connect);
}
