import type { AuditEvent } from "../domain/audit.ts";
import { DomainError, type Reason } from "../domain/errors.ts";
import type { Call } from "./call.ts";
import type { Ending } from "./call-log.ts";

/**
 * Refusals that the audit log keeps: what somebody may not do, or has no business to know of, and backups that are not
 * taken. Not what a client sent wrongly, nor what is busy for a moment. Failed logins have an event of their own.
 */
const KEPT: ReadonlySet<Reason> = new Set<Reason>([
  "ACCESS_DENIED",
  "SESSION_INVALID",
  "COLLECTION_NOT_FOUND",
  "UPLOAD_NOT_FOUND",
  "SESSION_NOT_FOUND",
  "USER_NOT_FOUND",
  "WINDOW_CLOSED",
  "WINDOW_FULL",
  "VERSION_TOO_SOON",
  "VERSION_TOO_SMALL",
  "UPLOAD_TOO_OLD",
  "COLLECTION_BUSY",
  "COLLECTION_FROZEN",
  "QUOTA_EXCEEDED",
  "ROTATION_BLOCKED",
  "CIPHERTEXT_REFUSED",
  "COMMIT_MISMATCH",
  "VERSION_PROTECTED",
  "VERSION_DAMAGED",
]);

/** The event of a call that was refused; undefined where the audit log keeps none. */
export function refusalOf(call: Call, { error }: Ending): AuditEvent | undefined {
  if (!(error instanceof DomainError) || !KEPT.has(error.reason)) return undefined;
  return {
    kind: "call.refused",
    actor: call.principal ?? "server",
    collectionName: error.metadata.collection ?? "",
    object: call.method,
    outcome: "refused",
    reason: error.reason,
    address: call.address,
    requestId: call.requestId,
    details: { door: call.door, message: error.message },
  };
}
