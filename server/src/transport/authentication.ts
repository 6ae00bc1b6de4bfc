import type { Interceptor } from "@connectrpc/connect";
import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import { MAX_TOKEN_LENGTH } from "@strongroom/protocol/limits";
import { authenticate, type SessionDeps } from "../app/sessions/sessions.ts";
import { DomainError } from "../domain/errors.ts";
import { ADDRESS, authenticationRequired, PRINCIPAL } from "./call-context.ts";

/** What a method asks of its caller before its use case decides: a valid session, a session or a health secret, or nothing. */
export type Requirement = "session" | "session-or-health-secret" | "nothing";

/** One entry for every method that is served; a method without an entry is refused. */
export const REQUIREMENTS: Readonly<Record<string, Requirement>> = {
  "strongroom.v1.UploadService/CreateUpload": "session",
  "strongroom.v1.UploadService/WriteSegment": "session",
  "strongroom.v1.UploadService/RenewUpload": "session",
  "strongroom.v1.UploadService/GetUpload": "session",
  "strongroom.v1.UploadService/ListUploads": "session",
  "strongroom.v1.UploadService/CommitUpload": "session",
  "strongroom.v1.UploadService/AbortUpload": "session",
  "strongroom.v1.VersionService/ListVersions": "session",
  "strongroom.v1.VersionService/GetVersion": "session",
  "strongroom.v1.VersionService/ListSegmentDigests": "session",
  "strongroom.v1.VersionService/ReadVersion": "session",
  "strongroom.v1.VersionService/DeleteVersion": "session",
  "strongroom.v1.CollectionService/ListCollections": "session",
  "strongroom.v1.CollectionService/GetCollection": "session",
  "strongroom.v1.CollectionService/GetCollectionHealth": "session-or-health-secret",
  "strongroom.v1.SessionService/Login": "nothing",
  "strongroom.v1.SessionService/RefreshSession": "session",
  "strongroom.v1.SessionService/WhoAmI": "session",
  "strongroom.v1.SessionService/ListSessions": "session",
  "strongroom.v1.SessionService/RevokeSession": "session",
  "grpc.health.v1.Health/Check": "nothing",
  "grpc.health.v1.Health/List": "nothing",
  "grpc.health.v1.Health/Watch": "nothing",
  // The schema is public: it stands in the checkout.
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "nothing",
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "nothing",
};

/** Lets a call through only if it meets the requirement of its method. */
export function authenticationInterceptor(deps: SessionDeps): Interceptor {
  return (next) => async (req) => {
    const requirement = REQUIREMENTS[`${req.service.typeName}/${req.method.name}`];
    if (requirement === undefined) throw new DomainError("ACCESS_DENIED", "this method is not open to anybody");
    if (requirement === "nothing") return await next(req);
    const token = /^Bearer (\S+)$/i.exec(req.header.get("authorization") ?? "")?.[1];
    if (token !== undefined && token.length <= MAX_TOKEN_LENGTH) {
      req.contextValues.set(PRINCIPAL, await authenticate(deps, token, req.contextValues.get(ADDRESS)));
    } else if (requirement === "session" || !req.header.has(HEALTH_SECRET_HEADER)) {
      throw authenticationRequired();
    }
    return await next(req);
  };
}
