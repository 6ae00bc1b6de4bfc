/*
 * The route table: what is true of a call before its body. Default deny: a method without an entry is refused, and a
 * test fails.
 */

/**
 * Who may call: anyone; someone with a session; with a session or a collection's health secret, in its own header or, of
 * the HTTP API, as `Authorization` or `?code=`; with the monitoring secret, where there is one.
 */
export type Admission = "anonymous" | "session" | "session or secret" | "session or bare secret" | "monitoring";

/**
 * Which budget of the caller's address a call draws from. `login` is that of requests first, and then the one of failed
 * logins. `none` is for what costs no more than its refusal would.
 */
export type RouteBudget = "requests" | "health" | "login" | "none";

/** What a method or path asks of its caller before its use case decides. */
export interface Route {
  readonly who: Admission;
  readonly budget: RouteBudget;
  /** Most bytes of a message of the body, unpacked; `chunk` is a chunk of ciphertext and what is around it. */
  readonly message: number | "chunk";
  /**
   * How long the whole body may take, in milliseconds; undefined for streams of messages, whose silence is watched
   * where they are read.
   */
  readonly bodyMs: number | undefined;
  /** Whether the body may be packed with gzip. */
  readonly gzip: boolean;
  /** Whether each message of its stream draws from the budget, not only the first: for streams that need nobody. */
  readonly drawsPerMessage?: boolean;
  /** Whether machines ask it every few seconds, so that an answer is a line of the log only at the level debug. */
  readonly isProbe?: boolean;
}

const KIB = 1024;
const BODY_MS = 10_000;

const ANYONE = { who: "anonymous", message: 64 * KIB, bodyMs: BODY_MS, gzip: true } as const;
const SESSION = { ...ANYONE, who: "session", budget: "requests" } as const satisfies Route;
const HEALTH = { ...ANYONE, budget: "health" } as const satisfies Route;
/** Streams of what does not get smaller, or of questions that nobody has to log in for. */
const UNPACKED = { bodyMs: undefined, gzip: false } as const;
/** The schema is public: it is in the checkout. */
const SCHEMA = { ...ANYONE, ...UNPACKED, budget: "requests", drawsPerMessage: true } as const satisfies Route;

/** One entry for every method that is served. */
export const ROUTES: Readonly<Record<string, Route>> = {
  "strongroom.v1.UploadService/CreateUpload": { ...SESSION, message: 256 * KIB },
  "strongroom.v1.UploadService/CheckUpload": { ...SESSION, message: 256 * KIB },
  "strongroom.v1.UploadService/WriteSegment": { ...SESSION, ...UNPACKED, message: "chunk" },
  "strongroom.v1.UploadService/RenewUpload": SESSION,
  "strongroom.v1.UploadService/GetUpload": SESSION,
  "strongroom.v1.UploadService/ListUploads": SESSION,
  "strongroom.v1.UploadService/CommitUpload": SESSION,
  "strongroom.v1.UploadService/AbortUpload": SESSION,
  "strongroom.v1.VersionService/ListVersions": SESSION,
  "strongroom.v1.VersionService/GetVersion": SESSION,
  "strongroom.v1.VersionService/ListSegmentDigests": SESSION,
  "strongroom.v1.VersionService/ReadVersion": { ...SESSION, gzip: false },
  "strongroom.v1.VersionService/DeleteVersion": SESSION,
  "strongroom.v1.VersionService/UndeleteVersion": SESSION,
  "strongroom.v1.VersionService/ConfirmVersion": SESSION,
  "strongroom.v1.VersionService/HoldVersion": SESSION,
  "strongroom.v1.VersionService/ReleaseVersion": SESSION,
  "strongroom.v1.VersionService/ListKeys": SESSION,
  "strongroom.v1.CollectionService/ListCollections": SESSION,
  "strongroom.v1.CollectionService/GetCollection": SESSION,
  "strongroom.v1.CollectionService/ConfirmPolicy": SESSION,
  "strongroom.v1.CollectionService/GetCollectionHealth": { ...HEALTH, who: "session or secret" },
  "strongroom.v1.SessionService/Login": { ...ANYONE, budget: "login", message: 16 * KIB },
  "strongroom.v1.SessionService/RefreshSession": SESSION,
  "strongroom.v1.SessionService/WhoAmI": SESSION,
  "strongroom.v1.SessionService/ListSessions": SESSION,
  "strongroom.v1.SessionService/RevokeSession": SESSION,
  "strongroom.v1.SessionService/RevokeSessions": SESSION,
  "strongroom.v1.AdminService/GetObject": SESSION,
  "strongroom.v1.AdminService/ListObjects": SESSION,
  "strongroom.v1.SessionService/RotateSigningKey": SESSION,
  "strongroom.v1.AdminService/ApplyObjects": { ...SESSION, message: 1024 * KIB },
  "strongroom.v1.AdminService/DeleteObject": SESSION,
  "strongroom.v1.AdminService/TestNotifier": SESSION,
  "strongroom.v1.AdminService/GetServerStatus": SESSION,
  "strongroom.v1.AdminService/RunSweep": SESSION,
  "strongroom.v1.AdminService/RunVerification": SESSION,
  "strongroom.v1.AdminService/ListAuditEvents": SESSION,
  "strongroom.v1.OrganizationService/ListOrganizations": SESSION,
  "strongroom.v1.OrganizationService/CloseOrganization": SESSION,
  "strongroom.v1.OrganizationService/OpenOrganization": SESSION,
  "strongroom.v1.OrganizationService/PurgeOrganization": SESSION,
  "strongroom.v1.OrganizationService/ListUsage": SESSION,
  "strongroom.v1.AdminService/CreateAccessKey": SESSION,
  "strongroom.v1.AdminService/SetPassword": { ...SESSION, message: 16 * KIB },
  "grpc.health.v1.Health/Check": { ...HEALTH, isProbe: true },
  "grpc.health.v1.Health/List": { ...HEALTH, isProbe: true },
  "grpc.health.v1.Health/Watch": { ...HEALTH, drawsPerMessage: true, isProbe: true },
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": SCHEMA,
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": SCHEMA,
};

const NO_BODY = { message: 0, bodyMs: 0, gzip: false } as const;
const PROBE = { ...NO_BODY, isProbe: true } as const;

/** One entry for every path of plain HTTP. */
export const HTTP_ROUTES: Readonly<Record<string, Route>> = {
  // What keeps a process alive must not depend on who else asks.
  "/health": { ...PROBE, who: "anonymous", budget: "none" },
  "/ready": { ...PROBE, who: "monitoring", budget: "health" },
  "/metrics": { ...PROBE, who: "monitoring", budget: "health" },
};

const API = { ...NO_BODY, who: "session", budget: "requests" } as const satisfies Route;

/**
 * One entry for every method and path of the HTTP API, which answers below `/api/stable` and `/api/alpha` alike; `:x` is
 * one part of the path.
 */
export const HTTP_API_ROUTES = {
  "POST /api/auth/login": { ...ANYONE, budget: "login", message: 16 * KIB, gzip: false },
  "GET /api/auth/refresh_token": API,
  "GET /api/auth/whoami": API,
  "GET /api/auth/user/:name": API,
  "DELETE /api/auth/logout": API,
  "GET /api/auth/token": API,
  "POST /api/repository/collection/:id/version": { ...API, ...UNPACKED, message: "chunk" },
  "GET /api/repository/collection/:id/version/:n": API,
  "GET /api/repository/collection/:id/version": API,
  "GET /api/repository/collection/:id/health": { ...NO_BODY, who: "session or bare secret", budget: "health" },
} as const satisfies Readonly<Record<string, Route>>;

/** A route of the HTTP API. */
export type HttpApiRoute = keyof typeof HTTP_API_ROUTES;

/** The entry of a method or path; undefined for one that nobody may call. */
export function routeOf(method: string): Route | undefined {
  if (Object.hasOwn(ROUTES, method)) return ROUTES[method];
  if (Object.hasOwn(HTTP_API_ROUTES, method)) return HTTP_API_ROUTES[method as HttpApiRoute];
  return Object.hasOwn(HTTP_ROUTES, method) ? HTTP_ROUTES[method] : undefined;
}

/** Most bytes of a message of a route's body. A chunk in JSON is written in base64, which takes 4 bytes for 3. */
export function largestMessage({ message }: Pick<Route, "message">, maxChunkSize: number, overhead: number): number {
  return message === "chunk" ? Math.ceil((maxChunkSize * 4) / 3) + overhead : message;
}
