import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@strongroom/gen/google/rpc/error_details_pb";
import { ERROR_DOMAIN, REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { BodyBrokenError } from "../app/uploads/segment-body.ts";
import { DomainError, type Reason } from "../domain/errors.ts";

const CODES: Readonly<Record<Reason, Code>> = {
  INVALID_REQUEST: Code.InvalidArgument,
  PAGE_TOKEN_INVALID: Code.InvalidArgument,
  AUTHENTICATION_REQUIRED: Code.Unauthenticated,
  CREDENTIALS_INVALID: Code.Unauthenticated,
  SESSION_INVALID: Code.Unauthenticated,
  ACCESS_DENIED: Code.PermissionDenied,
  LOGIN_BUSY: Code.ResourceExhausted,
  RATE_LIMITED: Code.ResourceExhausted,
  COLLECTION_NOT_FOUND: Code.NotFound,
  VERSION_NOT_FOUND: Code.NotFound,
  UPLOAD_NOT_FOUND: Code.NotFound,
  SESSION_NOT_FOUND: Code.NotFound,
  WINDOW_CLOSED: Code.FailedPrecondition,
  COLLECTION_BUSY: Code.Aborted,
  COLLECTION_FROZEN: Code.FailedPrecondition,
  QUOTA_EXCEEDED: Code.ResourceExhausted,
  ROTATION_BLOCKED: Code.FailedPrecondition,
  REQUEST_ID_REUSED: Code.AlreadyExists,
  UPLOAD_NOT_OPEN: Code.FailedPrecondition,
  SEGMENT_FRAMES_INVALID: Code.InvalidArgument,
  SEGMENT_SIZE_MISMATCH: Code.InvalidArgument,
  SEGMENT_DIGEST_MISMATCH: Code.InvalidArgument,
  SEGMENT_CONFLICT: Code.AlreadyExists,
  SEGMENT_SUPERSEDED: Code.Aborted,
  SEGMENT_IDLE: Code.DeadlineExceeded,
  PREVIOUS_SEGMENT_MISSING: Code.FailedPrecondition,
  FRAMING_STATE_INVALID: Code.InvalidArgument,
  CIPHERTEXT_REFUSED: Code.InvalidArgument,
  SEGMENTS_INCOMPLETE: Code.FailedPrecondition,
  COMMIT_MISMATCH: Code.InvalidArgument,
  UPLOAD_EMPTY: Code.InvalidArgument,
  VERSION_PROTECTED: Code.FailedPrecondition,
  RANGE_INVALID: Code.OutOfRange,
  VERSION_DAMAGED: Code.DataLoss,
  STORE_UNAVAILABLE: Code.Unavailable,
  DATABASE_UNAVAILABLE: Code.Unavailable,
  SHUTTING_DOWN: Code.Unavailable,
};

interface Detail<D extends DescMessage = DescMessage> {
  desc: D;
  value: MessageInitShape<D>;
}

const detail = <D extends DescMessage>(desc: D, value: MessageInitShape<D>): Detail<D> => ({ desc, value });

/** Whether an error is a fault of the server rather than an answer to the caller; such errors are logged with their stack. */
export function isFault(error: unknown): boolean {
  return !(error instanceof DomainError || error instanceof ConnectError || error instanceof BodyBrokenError);
}

/** The one place where errors become Connect codes with details. What is no answer to the caller says nothing of what happened inside. */
export function toConnectError(error: unknown, requestId: string): ConnectError {
  const headers = { [REQUEST_ID_HEADER]: requestId };
  if (error instanceof ConnectError) {
    error.metadata.set(REQUEST_ID_HEADER, requestId);
    return error;
  }
  if (error instanceof BodyBrokenError) return new ConnectError(error.message, Code.Canceled, headers);
  const requestInfo = detail(RequestInfoSchema, { requestId });
  if (!(error instanceof DomainError)) {
    const info = detail(ErrorInfoSchema, { reason: "ERROR_REASON_INTERNAL", domain: ERROR_DOMAIN });
    const message = `a fault of the server; its log has it under request id ${requestId}`;
    return new ConnectError(message, Code.Internal, headers, [info, requestInfo]);
  }
  const details: Detail[] = [
    detail(ErrorInfoSchema, {
      reason: `ERROR_REASON_${error.reason}`,
      domain: ERROR_DOMAIN,
      metadata: { ...error.metadata },
    }),
    requestInfo,
  ];
  if (error.retryAfterMs !== undefined) {
    const seconds = Math.floor(error.retryAfterMs / 1000);
    const retryDelay = { seconds: BigInt(seconds), nanos: Math.round((error.retryAfterMs - seconds * 1000) * 1e6) };
    details.push(detail(RetryInfoSchema, { retryDelay }));
  }
  if (error.reason === "QUOTA_EXCEEDED") {
    details.push(
      detail(QuotaFailureSchema, { violations: [{ subject: error.metadata.limit ?? "", description: error.message }] }),
    );
  }
  if (error.reason === "INVALID_REQUEST") {
    const violation = { field: error.metadata.field ?? "", description: error.message };
    details.push(detail(BadRequestSchema, { fieldViolations: [violation] }));
  }
  return new ConnectError(error.message, CODES[error.reason], headers, details, error.cause);
}

/** Every reason with its code; for the test that compares it with `error_reason.proto`. */
export const REASON_CODES: Readonly<Record<string, Code>> = CODES;
