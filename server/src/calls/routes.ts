/*
 * The route table: what is true of a call before its body. Default deny: a method without an entry is refused, and a test fails.
 */

/** Who may call: anybody, somebody with a session, or somebody with either a session or a collection's health secret. */
export type Admission = "anonymous" | "session" | "session or secret";

/** Which budget of the caller's address a call draws from. `login` is that of requests first, and then the one of failed logins. */
export type RouteBudget = "requests" | "health" | "login";

/** What a method asks of its caller before its use case decides. */
export interface Route {
  readonly who: Admission;
  readonly budget: RouteBudget;
}

const SESSION = { who: "session", budget: "requests" } as const satisfies Route;
const HEALTH = { who: "anonymous", budget: "health" } as const satisfies Route;
/** The schema is public: it is in the checkout. */
const SCHEMA = { who: "anonymous", budget: "requests" } as const satisfies Route;

/** One entry for every method that is served. */
export const ROUTES: Readonly<Record<string, Route>> = {
  "strongroom.v1.UploadService/CreateUpload": SESSION,
  "strongroom.v1.UploadService/WriteSegment": SESSION,
  "strongroom.v1.UploadService/RenewUpload": SESSION,
  "strongroom.v1.UploadService/GetUpload": SESSION,
  "strongroom.v1.UploadService/ListUploads": SESSION,
  "strongroom.v1.UploadService/CommitUpload": SESSION,
  "strongroom.v1.UploadService/AbortUpload": SESSION,
  "strongroom.v1.VersionService/ListVersions": SESSION,
  "strongroom.v1.VersionService/GetVersion": SESSION,
  "strongroom.v1.VersionService/ListSegmentDigests": SESSION,
  "strongroom.v1.VersionService/ReadVersion": SESSION,
  "strongroom.v1.VersionService/DeleteVersion": SESSION,
  "strongroom.v1.CollectionService/ListCollections": SESSION,
  "strongroom.v1.CollectionService/GetCollection": SESSION,
  "strongroom.v1.CollectionService/GetCollectionHealth": { who: "session or secret", budget: "health" },
  "strongroom.v1.SessionService/Login": { who: "anonymous", budget: "login" },
  "strongroom.v1.SessionService/RefreshSession": SESSION,
  "strongroom.v1.SessionService/WhoAmI": SESSION,
  "strongroom.v1.SessionService/ListSessions": SESSION,
  "strongroom.v1.SessionService/RevokeSession": SESSION,
  "grpc.health.v1.Health/Check": HEALTH,
  "grpc.health.v1.Health/List": HEALTH,
  "grpc.health.v1.Health/Watch": HEALTH,
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": SCHEMA,
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": SCHEMA,
};

/** The entry of a method; undefined for one that nobody may call. */
export function routeOf(method: string): Route | undefined {
  return Object.hasOwn(ROUTES, method) ? ROUTES[method] : undefined;
}
