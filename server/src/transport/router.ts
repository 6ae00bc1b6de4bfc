import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { Health } from "@strongroom/gen/grpc/health/v1/health_pb";
import { ServerReflection } from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionV1Alpha } from "@strongroom/gen/grpc/reflection/v1alpha/reflection_pb";
import { AdminService } from "@strongroom/gen/strongroom/v1/admin_service_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { OrganizationService } from "@strongroom/gen/strongroom/v1/organization_service_pb";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import type { CollectionDeps } from "../app/collections/collections.ts";
import type { BlobStore } from "../app/ports/blob-store.ts";
import type { NotificationSender } from "../app/ports/notifications.ts";
import type { LoginBudget } from "../app/sessions/login-budget.ts";
import type { SessionDeps } from "../app/sessions/sessions.ts";
import type { Log } from "../app/settings.ts";
import type { VersionDeps } from "../app/versions/versions.ts";
import { processBudgets } from "../calls/budgets.ts";
import { beginCall, type Door } from "../calls/call.ts";
import { Calls } from "../calls/calls.ts";
import type { Metrics } from "../calls/metrics.ts";
import { plainText } from "../calls/plain-text.ts";
import { type AddressSet, callerAddress } from "../domain/addresses.ts";
import { NO_LIMITS, type RateLimits } from "../domain/rate-limit.ts";
import { type AdminDeps, adminService } from "./admin-service.ts";
import { collectionService } from "./collection-service.ts";
import { connectDoor, type MethodOptions } from "./connect-door.ts";
import { connectionOf } from "./connection.ts";
import { CrossOrigin } from "./cors.ts";
import { healthService } from "./health-service.ts";
import { apiMethod, httpApiDoor } from "./http-api/door.ts";
import { isApiPath } from "./http-api/paths.ts";
import type { UploadRouteDeps } from "./http-api/upload-route.ts";
import { httpDoor, isHttpPath, type Monitoring, preflightDoor } from "./http-endpoints.ts";
import type { RequestHandler } from "./listener.ts";
import { organizationService } from "./organization-service.ts";
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
  AdminService,
  OrganizationService,
  Health,
  ServerReflection,
  ServerReflectionV1Alpha,
] as const;

/** The ports and settings of all services, together. */
export interface RouterDeps
  extends AdminDeps,
    UploadServiceDeps,
    VersionDeps,
    CollectionDeps,
    SessionDeps,
    UploadRouteDeps {
  readonly store: BlobStore;
  readonly log: Log;
  readonly state: ServingState;
  readonly logins: Pick<LoginBudget, "take" | "giveBack">;
  /** Limits of calls from one address; none when left out. */
  readonly rateLimits?: RateLimits | undefined;
  readonly monitoring: Omit<Monitoring, "stopping">;
  readonly metrics: Metrics | undefined;
  /** How notifications are sent; undefined for not at all. */
  readonly sender?: NotificationSender | undefined;
  /** SHA-256 of the monitoring secret in hexadecimal; undefined when there is none. */
  readonly monitoringSecretSha256?: string | undefined;
  /** Proxies whose X-Forwarded-For is trusted. */
  readonly trustedProxies: AddressSet;
  /** Origins whose pages may call from a browser. */
  readonly corsOrigins: readonly string[];
  /** Lets chunks go through the generic layers of the library, to compare with the way past them. */
  readonly genericStreams: boolean;
  /** Ends running calls when the server must not wait any longer. */
  readonly shutdownSignal: AbortSignal;
}

/** Most characters of a path that nobody serves, in the log. */
const MAX_PATH_LENGTH = 200;

/**
 * Every door of the server as one request handler: a call is made of each request's headers, and goes through the door
 * that its path and method name.
 */
export function requestHandler(deps: RouterDeps): RequestHandler {
  const calls = new Calls({ ...deps, budgets: processBudgets(deps.rateLimits ?? NO_LIMITS) });
  const crossOrigin = new CrossOrigin(deps.corsOrigins);
  const http = httpDoor({ ...deps.monitoring, stopping: () => deps.state.stopping }, calls);
  const preflight = preflightDoor(crossOrigin, calls);
  const api = httpApiDoor({ ...deps, authenticated: (req) => connectionOf(req).authenticated() }, calls);
  const connect = connectDoor({
    calls,
    metrics: deps.metrics,
    maxChunkSize: deps.settings.maxChunkSize,
    shutdownSignal: deps.shutdownSignal,
    genericStreams: deps.genericStreams,
    routes: (router, optionsOf) => addServices(deps, router, optionsOf),
    authenticated: (req) => connectionOf(req).authenticated(),
  });
  return (req, res) => {
    toOriginForm(req);
    const path = (req.url ?? "").split("?", 1)[0]!;
    const isHttp = isHttpPath(path);
    const isApi = isApiPath(path);
    const isPreflight = !isHttp && !isApi && req.method === "OPTIONS";
    const shown = plainText(path.slice(1), MAX_PATH_LENGTH);
    const call = beginCall({
      door: isHttp || isApi || isPreflight ? "http" : doorOf(req.headers["content-type"]),
      // What is in the path of the HTTP API, such as the name of a collection, is a caller's.
      method: isPreflight ? "OPTIONS" : isHttp ? path : isApi ? (apiMethod(req, path) ?? shown) : shown,
      // Node joins a header that comes several times.
      address: callerAddress(
        req.socket.remoteAddress ?? "",
        req.headers["x-forwarded-for"] as string | undefined,
        deps.trustedProxies,
      ),
      requestId: req.headers[REQUEST_ID_HEADER] as string | undefined,
    });
    if (isHttp) return http(call, req, res);
    if (isApi) return api(call, req, res);
    if (isPreflight) return preflight(call, req, res);
    crossOrigin.allow(req, res);
    connect(call, req, res);
  };
}

/**
 * Clients that take the server for a proxy send the whole URL in the place of the path; what it names then counts for
 * the Host header too (RFC 9112, section 3.2.2).
 */
function toOriginForm(req: Parameters<RequestHandler>[0]): void {
  const [, authority, rest] = /^https?:\/\/([^/?#]+)(.*)$/is.exec(req.url ?? "") ?? [];
  if (authority === undefined) return;
  req.url = rest!.startsWith("/") ? rest! : `/${rest}`;
  req.headers.host = authority;
}

/** Adds every service to the router, each method with the bounds of its route. */
function addServices(deps: RouterDeps, router: ConnectRouter, optionsOf: (method: string) => MethodOptions): void {
  const names = SERVICES.map((service) => service.typeName);
  const reflection = reflectionServices(ReflectionIndex.ofContract(), names, deps.state);
  const add = <S extends DescService>(service: S, implementation: ServiceImpl<S>) => {
    for (const method of service.methods) {
      const call = (implementation as Record<string, never>)[method.localName]!;
      router.rpc(method, call, optionsOf(`${service.typeName}/${method.name}`));
    }
  };
  add(UploadService, uploadService(deps));
  add(VersionService, versionService(deps));
  add(CollectionService, collectionService(deps));
  add(SessionService, sessionService(deps));
  add(AdminService, adminService(deps));
  add(OrganizationService, organizationService(deps));
  add(Health, healthService(deps.state, names));
  add(ServerReflection, reflection.v1);
  add(ServerReflectionV1Alpha, reflection.v1alpha);
}

/** The protocol a request speaks, by its content type. */
function doorOf(contentType: string | undefined): Door {
  if (contentType?.startsWith("application/grpc-web") === true) return "grpc-web";
  return contentType?.startsWith("application/grpc") === true ? "grpc" : "connect";
}
