import { type ConnectRouter, createContextValues } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Health } from "@strongroom/gen/grpc/health/v1/health_pb";
import { ServerReflection } from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionV1Alpha } from "@strongroom/gen/grpc/reflection/v1alpha/reflection_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { MESSAGE_OVERHEAD_BYTES } from "@strongroom/protocol/limits";
import type { CollectionDeps } from "../app/collections/collections.ts";
import type { LoginBudget } from "../app/sessions/login-budget.ts";
import type { SessionDeps } from "../app/sessions/sessions.ts";
import type { Log } from "../app/settings.ts";
import type { VersionDeps } from "../app/versions/versions.ts";
import { processBudgets } from "../calls/budgets.ts";
import { beginCall, type CallHead, type Door } from "../calls/call.ts";
import { Calls } from "../calls/calls.ts";
import type { Metrics } from "../calls/metrics.ts";
import { type AddressSet, callerAddress } from "../domain/addresses.ts";
import { NO_LIMITS, type RateLimits } from "../domain/rate-limit.ts";
import { collectionService } from "./collection-service.ts";
import { CALL, callInterceptor } from "./connect-calls.ts";
import { healthService } from "./health-service.ts";
import { type Monitoring, withHttpEndpoints } from "./http-endpoints.ts";
import type { RequestHandler } from "./listener.ts";
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
  readonly logins: Pick<LoginBudget, "take" | "giveBack">;
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
  const calls = new Calls({ ...deps, budgets });
  const addressOf = ({ socket, headers }: Parameters<RequestHandler>[0]) =>
    // Node joins a header that comes several times.
    callerAddress(socket.remoteAddress ?? "", headers["x-forwarded-for"] as string | undefined, deps.trustedProxies);
  const headOf = (req: Parameters<RequestHandler>[0]): CallHead => ({
    door: doorOf(req.headers["content-type"]),
    method: (req.url ?? "").split("?", 1)[0]!.slice(1),
    address: addressOf(req),
    requestId: req.headers[REQUEST_ID_HEADER] as string | undefined,
  });
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
    interceptors: [callInterceptor(calls, deps.metrics)],
    readMaxBytes: deps.settings.maxChunkSize + MESSAGE_OVERHEAD_BYTES,
    // Ciphertext does not compress, and compressed requests would be unpacked before they are bounded.
    acceptCompression: [],
    shutdownSignal: deps.shutdownSignal,
    contextValues: (req) => createContextValues().set(CALL, beginCall(headOf(req as Parameters<RequestHandler>[0]))),
  }) as RequestHandler;
  const take = (req: Parameters<RequestHandler>[0]) => budgets.health.take(addressOf(req));
  return withHttpEndpoints({ ...deps.monitoring, stopping: () => deps.state.stopping, take }, connect);
}

/** The protocol a request speaks, by its content type. */
function doorOf(contentType: string | undefined): Door {
  if (contentType?.startsWith("application/grpc-web") === true) return "grpc-web";
  return contentType?.startsWith("application/grpc") === true ? "grpc" : "connect";
}
