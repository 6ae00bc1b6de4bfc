import { BufferTooLargeError } from "../app/uploads/buffer-pool.ts";
import { BodyBrokenError } from "../app/uploads/segment-body.ts";
import { DomainError, type Reason } from "../domain/errors.ts";

/** The canonical codes of gRPC (google.rpc.Code), as the Connect protocol writes them. */
export type CodeName =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

/** The code of every reason, for all doors. */
export const CODES: Readonly<Record<Reason, CodeName>> = {
  INVALID_REQUEST: "invalid_argument",
  PAGE_TOKEN_INVALID: "invalid_argument",
  AUTHENTICATION_REQUIRED: "unauthenticated",
  CREDENTIALS_INVALID: "unauthenticated",
  SESSION_INVALID: "unauthenticated",
  ACCESS_DENIED: "permission_denied",
  LOGIN_BUSY: "resource_exhausted",
  RATE_LIMITED: "resource_exhausted",
  COLLECTION_NOT_FOUND: "not_found",
  VERSION_NOT_FOUND: "not_found",
  UPLOAD_NOT_FOUND: "not_found",
  SESSION_NOT_FOUND: "not_found",
  USER_NOT_FOUND: "not_found",
  WINDOW_CLOSED: "failed_precondition",
  WINDOW_FULL: "failed_precondition",
  VERSION_TOO_SOON: "failed_precondition",
  VERSION_TOO_SMALL: "failed_precondition",
  UPLOAD_TOO_OLD: "failed_precondition",
  COLLECTION_BUSY: "aborted",
  COLLECTION_FROZEN: "failed_precondition",
  QUOTA_EXCEEDED: "resource_exhausted",
  ROTATION_BLOCKED: "failed_precondition",
  REQUEST_ID_REUSED: "already_exists",
  UPLOAD_NOT_OPEN: "failed_precondition",
  SEGMENT_FRAMES_INVALID: "invalid_argument",
  SEGMENT_SIZE_MISMATCH: "invalid_argument",
  SEGMENT_DIGEST_MISMATCH: "invalid_argument",
  SEGMENT_CONFLICT: "already_exists",
  SEGMENT_SUPERSEDED: "aborted",
  SEGMENT_IDLE: "deadline_exceeded",
  PREVIOUS_SEGMENT_MISSING: "failed_precondition",
  FRAMING_STATE_INVALID: "invalid_argument",
  CIPHERTEXT_REFUSED: "invalid_argument",
  SEGMENTS_INCOMPLETE: "failed_precondition",
  COMMIT_MISMATCH: "invalid_argument",
  UPLOAD_EMPTY: "invalid_argument",
  VERSION_PROTECTED: "failed_precondition",
  RANGE_INVALID: "out_of_range",
  VERSION_DAMAGED: "data_loss",
  UPLOAD_LOST: "data_loss",
  OBJECT_NOT_FOUND: "not_found",
  OBJECTS_INVALID: "invalid_argument",
  OBJECT_EXISTS: "already_exists",
  CONFIGURATION_CONFLICT: "aborted",
  SERVER_OUTDATED: "failed_precondition",
  CONFIGURATION_READ_ONLY: "failed_precondition",
  NO_ADMIN_LEFT: "failed_precondition",
  KEY_ROTATION_REFUSED: "failed_precondition",
  ORGANIZATION_NOT_FOUND: "not_found",
  ORGANIZATION_CLOSED: "failed_precondition",
  PURGE_REFUSED: "failed_precondition",
  CONFIGURATION_OUTDATED: "unavailable",
  STORE_UNAVAILABLE: "unavailable",
  DATABASE_UNAVAILABLE: "unavailable",
  SHUTTING_DOWN: "unavailable",
  CALL_UNKNOWN: "unimplemented",
  CALL_MALFORMED: "invalid_argument",
  CALL_TOO_LARGE: "resource_exhausted",
};

/**
 * A refusal by a door, of a call that is none of the contract: malformed, too large, too slow. It has a code, and no
 * reason of the contract.
 */
export class CallRefused extends Error {
  override name = "CallRefused";
  readonly code: CodeName;

  constructor(code: CodeName, message: string) {
    super(message);
    this.code = code;
  }
}

/** The code of an error that is an answer to the caller; undefined for a fault of the server. */
export function codeOf(error: unknown): CodeName | undefined {
  if (error instanceof DomainError) return CODES[error.reason];
  if (error instanceof CallRefused) return error.code;
  if (error instanceof BufferTooLargeError) return "failed_precondition";
  return error instanceof BodyBrokenError ? "canceled" : undefined;
}
