/**
 * What a call can be refused for. The names are those of `proto/strongroom/v1/error_reason.proto` without their prefix;
 * which code each becomes is decided in `transport/error-map.ts`.
 */
export type Reason =
  | "INVALID_REQUEST"
  | "PAGE_TOKEN_INVALID"
  | "AUTHENTICATION_REQUIRED"
  | "CREDENTIALS_INVALID"
  | "SESSION_INVALID"
  | "ACCESS_DENIED"
  | "LOGIN_BUSY"
  | "RATE_LIMITED"
  | "COLLECTION_NOT_FOUND"
  | "VERSION_NOT_FOUND"
  | "UPLOAD_NOT_FOUND"
  | "SESSION_NOT_FOUND"
  | "USER_NOT_FOUND"
  | "WINDOW_CLOSED"
  | "WINDOW_FULL"
  | "VERSION_TOO_SOON"
  | "VERSION_TOO_SMALL"
  | "UPLOAD_TOO_OLD"
  | "COLLECTION_BUSY"
  | "COLLECTION_FROZEN"
  | "QUOTA_EXCEEDED"
  | "ROTATION_BLOCKED"
  | "REQUEST_ID_REUSED"
  | "UPLOAD_NOT_OPEN"
  | "SEGMENT_FRAMES_INVALID"
  | "SEGMENT_SIZE_MISMATCH"
  | "SEGMENT_DIGEST_MISMATCH"
  | "SEGMENT_CONFLICT"
  | "SEGMENT_SUPERSEDED"
  | "SEGMENT_IDLE"
  | "PREVIOUS_SEGMENT_MISSING"
  | "FRAMING_STATE_INVALID"
  | "CIPHERTEXT_REFUSED"
  | "SEGMENTS_INCOMPLETE"
  | "COMMIT_MISMATCH"
  | "UPLOAD_EMPTY"
  | "VERSION_PROTECTED"
  | "RANGE_INVALID"
  | "VERSION_DAMAGED"
  | "UPLOAD_LOST"
  | "OBJECT_NOT_FOUND"
  | "OBJECTS_INVALID"
  | "OBJECT_EXISTS"
  | "CONFIGURATION_CONFLICT"
  | "CONFIGURATION_READ_ONLY"
  | "NO_ADMIN_LEFT"
  | "KEY_ROTATION_REFUSED"
  | "ORGANIZATION_NOT_FOUND"
  | "ORGANIZATION_CLOSED"
  | "PURGE_REFUSED"
  | "CONFIGURATION_OUTDATED"
  | "SERVER_OUTDATED"
  | "STORE_UNAVAILABLE"
  | "DATABASE_UNAVAILABLE"
  | "SHUTTING_DOWN"
  | "CALL_UNKNOWN"
  | "CALL_MALFORMED"
  | "CALL_TOO_LARGE";

/** Extras of a {@link DomainError}. */
export interface DomainErrorOptions {
  /** Facts for programs, as strings; never a secret. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** When a retry makes sense, in milliseconds from now. */
  readonly retryAfterMs?: number;
  /** What is wrong with documents, for programs; never with a secret in it. */
  readonly findings?: readonly Finding[];
  /** Documents that somebody else is to put in place. */
  readonly toCommit?: readonly DocumentToCommit[];
  readonly cause?: unknown;
}

/** Something that is wrong with a document. */
export interface Finding {
  /** `-` for the documents of a request. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** Field within the object; empty for a whole document. */
  readonly path: string;
  readonly reason: string;
}

/** A document and the file that it belongs to. */
export interface DocumentToCommit {
  readonly file: string;
  /** Empty for one that is to be taken out. */
  readonly document: string;
}

/**
 * A refusal or failure that is reported to the caller. The message is for a person: what was expected, what it got,
 * what to do.
 */
export class DomainError extends Error {
  override name = "DomainError";
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly findings: readonly Finding[];
  readonly toCommit: readonly DocumentToCommit[];

  constructor(reason: Reason, message: string, options: DomainErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.metadata = options.metadata ?? {};
    this.retryAfterMs = options.retryAfterMs;
    this.findings = options.findings ?? [];
    this.toCommit = options.toCommit ?? [];
  }
}

/** A field of a request has no acceptable value. */
export function invalidField(field: string, message: string): DomainError {
  return new DomainError("INVALID_REQUEST", `${field}: ${message}`, { metadata: { field } });
}

/** The one answer for a collection that does not exist and one that the caller may not see. */
export function collectionNotFound(name: string): DomainError {
  return new DomainError(
    "COLLECTION_NOT_FOUND",
    `collection "${name}" does not exist, or you may not see it; check the name, and the roles of the user, ` +
      "access key and session",
    { metadata: { collection: name } },
  );
}

/** The database was migrated by a newer version than this server, which therefore does no upkeep. */
export function serverOutdated(): DomainError {
  return new DomainError(
    "SERVER_OUTDATED",
    "a newer version of Strongroom has migrated the database: this server takes and gives backups, and leaves sweeps, " +
      "heads of the audit log and changes of the configuration to servers of that version. Ask one of those, or " +
      "upgrade this one",
  );
}

/** Whether something was left undone since this server is older than the database. */
export function isServerOutdated(error: unknown): error is DomainError {
  return error instanceof DomainError && error.reason === "SERVER_OUTDATED";
}
