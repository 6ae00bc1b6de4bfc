/**
 * The SDK of Strongroom: streams encrypted dumps to a server, and back.
 *
 * ```ts
 * const token = tokenFromFile("/run/secrets/token");
 * const client = new StrongroomClient({ url: "https://backups.example.org", token });
 * const { version } = await client.upload({
 *   collection: "pg-main",
 *   source: dump.stdout,
 *   encryption: { kind: "age", recipients: ["age1..."] },
 * });
 * ```
 */

export {
  type AuditLogEntry,
  type GetServerStatusResponse,
  ObjectAction,
  ObjectFormat,
} from "@strongroom/gen/strongroom/v1/admin_service_pb";
export {
  type CollectionOverview,
  type FailedUpload,
  type GetCollectionHealthResponse,
  type HealthCheck,
  HealthStatus,
  type NewestVersion,
} from "@strongroom/gen/strongroom/v1/collection_service_pb";
export { ErrorReason } from "@strongroom/gen/strongroom/v1/error_reason_pb";
export type { Organization, PurgeRecord, UsageDay } from "@strongroom/gen/strongroom/v1/organization_service_pb";
export {
  type Collection,
  type CollectionLimits,
  type CollectionUsage,
  ContentEncoding,
  type Damage,
  DamageReason,
  EncryptionFormat,
  Role,
  RotationStrategy,
  type Segment,
  type Upload,
  UploadState,
  type UploadWindow,
  type Version,
  VersionState,
} from "@strongroom/gen/strongroom/v1/resources_pb";
export {
  CollectionAction,
  type CollectionRights,
  ObjectType,
  type ScopeElement,
  type Session,
  type WhoAmIResponse,
} from "@strongroom/gen/strongroom/v1/session_service_pb";
export type { ListKeysResponse } from "@strongroom/gen/strongroom/v1/version_service_pb";
export {
  type ClientOptions,
  type LoginOptions,
  type LoginResult,
  type ScopeElementInit,
  StrongroomClient,
} from "./client.ts";
export { type CallContext, olderServer, toStrongroomError } from "./connection/error-mapping.ts";
export type { ProxyEnvironment } from "./connection/proxy.ts";
export type { RetryEvent } from "./connection/retry.ts";
export { type TokenSource, tokenFromFile } from "./connection/token.ts";
export type { TlsOptions } from "./connection/transport.ts";
export type { DownloadOptions, DownloadProgress, DownloadResult } from "./download/download.ts";
export { type AgeKeyPair, generateAgeKey } from "./encryption/age.ts";
export type { Compression } from "./encryption/compression.ts";
export { generateOpenPgpKey, type OpenPgpKeyPair } from "./encryption/openpgp-library.ts";
export type { Decryption, Encryption } from "./encryption/options.ts";
export { findProgram } from "./encryption/programs.ts";
export {
  AccessDeniedError,
  AuthenticationError,
  DecryptionError,
  DumpMismatchError,
  EncryptionError,
  IntegrityError,
  InvalidRequestError,
  MinSizeError,
  NotFoundError,
  PolicyRefusedError,
  QuotaExceededError,
  SourceError,
  StrongroomError,
  type StrongroomErrorDetails,
  UnavailableError,
} from "./errors.ts";
export { SpoolError } from "./upload/spool.ts";
export type { UploadWait } from "./upload/turn.ts";
export type { UploadOptions, UploadProgress, UploadResult } from "./upload/upload.ts";
