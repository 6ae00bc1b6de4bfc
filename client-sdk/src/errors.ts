/**
 * The errors of the SDK: one class for each thing a caller can do about it.
 *
 * Every one extends {@link StrongroomError} and carries what the server said: the stable `reason` of
 * `strongroom.v1.ErrorReason`, its facts, and the request id under which the server's log has the call. Messages are
 * for people and never hold a token, a passphrase or a key.
 */

/** What an error carries besides its message. */
export interface StrongroomErrorDetails {
  /**
   * Name of the Connect code, for example `resource_exhausted`. Errors that arose on the client have the code that fits
   * best.
   */
  code?: string;
  /** `ErrorInfo.reason`, for example `QUOTA_EXCEEDED`; empty when the error did not come from a Strongroom server. */
  reason?: string;
  /** `ErrorInfo.metadata`: facts in text form, for example `remaining_bytes`. */
  metadata?: Readonly<Record<string, string>>;
  /** Id of the failed request, for the operator who looks into the server's log; empty when no request was made. */
  requestId?: string;
  /** How long the server asks to wait before a retry, in milliseconds (`google.rpc.RetryInfo`). */
  retryAfterMs?: number;
  /** The error this one was made from. */
  cause?: unknown;
}

/** The base of all errors the SDK throws, except for the reason of an abort signal, which is rethrown as it is. */
export class StrongroomError extends Error {
  /** Name of the Connect code, for example `unavailable`. */
  readonly code: string;
  /** The stable reason the server gave; empty for errors that arose on the client. */
  readonly reason: string;
  /** Facts the server gave with the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Id of the failed request; empty when no request was made. */
  readonly requestId: string;
  /** Milliseconds the server asks to wait before a retry; undefined when it did not say. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, details: StrongroomErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code ?? "unknown";
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.requestId = details.requestId ?? "";
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** There is no valid session: the token is missing, expired or revoked, or the login was refused. Log in again. */
export class AuthenticationError extends StrongroomError {}

/** The session is valid, but has no right to do this. */
export class AccessDeniedError extends StrongroomError {}

/**
 * The collection, version, upload or session does not exist, or the caller may not see it; the server gives both the
 * same answer.
 */
export class NotFoundError extends StrongroomError {}

/**
 * The bytes do not fit a quota. `metadata` says which `limit`, `limit_bytes`, `requested_bytes` and `remaining_bytes`.
 */
export class QuotaExceededError extends StrongroomError {}

/**
 * A rule of the collection refused the call: no open window, too many uploads at once, not a ciphertext, held versions,
 * ...
 */
export class PolicyRefusedError extends StrongroomError {}

/** The call itself is wrong: a field, a page token, an option. A retry cannot help. */
export class InvalidRequestError extends StrongroomError {}

/** The network, the server, its store or its database failed, and retrying did not help in the time it was given. */
export class UnavailableError extends StrongroomError {
  /** The upload that was given up; empty when the error does not concern an upload. */
  readonly uploadId: string;
  /** Whether the commit of that upload was asked for: it may be a version, or become one without another call. */
  readonly isUndecided: boolean;

  constructor(message: string, details: StrongroomErrorDetails & { uploadId?: string; isUndecided?: boolean } = {}) {
    super(message, { code: "unavailable", ...details });
    this.uploadId = details.uploadId ?? "";
    this.isUndecided = details.isUndecided ?? false;
  }
}

/**
 * Downloaded bytes do not have the recorded digest, or the stored version is damaged. Nothing that was put out may be
 * used.
 */
export class IntegrityError extends StrongroomError {
  constructor(message: string, details: StrongroomErrorDetails = {}) {
    super(message, { code: "data_loss", ...details });
  }
}

/** The source of the dump failed; its error is the `cause`. Nothing was published. */
export class SourceError extends StrongroomError {
  constructor(message: string, details: StrongroomErrorDetails = {}) {
    super(message, { code: "aborted", ...details });
  }
}

/**
 * The dump could not be encrypted: no usable key, a missing program, a failing `gpg` or `age`. Nothing was published.
 */
export class EncryptionError extends StrongroomError {
  constructor(message: string, details: StrongroomErrorDetails = {}) {
    super(message, { code: "failed_precondition", ...details });
  }
}

/** The version could not be decrypted or decompressed: wrong key or passphrase, a missing program, another format. */
export class DecryptionError extends StrongroomError {
  constructor(message: string, details: StrongroomErrorDetails = {}) {
    super(message, { code: "failed_precondition", ...details });
  }
}

/** The source is not what was declared: another size, or another SHA-256. Nothing was published. */
export class DumpMismatchError extends StrongroomError {
  constructor(message: string, details: StrongroomErrorDetails = {}) {
    super(message, { code: "failed_precondition", ...details });
  }
}

/** The source ended with fewer bytes than `minSize`. Nothing was published. */
export class MinSizeError extends StrongroomError {
  /** Bytes the source had. */
  readonly sourceBytes: bigint;
  /** Bytes it should have had at least. */
  readonly minSize: bigint;

  constructor(sourceBytes: bigint, minSize: bigint) {
    super(
      sourceBytes === 0n
        ? "The dump is empty, so nothing was stored. Check the program that makes it, or allow it with a minimum " +
            "size of 0 bytes."
        : `The dump ended after ${sourceBytes} bytes, expected at least ${minSize}, so nothing was stored. Check ` +
            "the program that makes it, or lower the minimum size.",
      { code: "failed_precondition" },
    );
    this.sourceBytes = sourceBytes;
    this.minSize = minSize;
  }
}
