import {
  BlobDigestError,
  BlobNotFoundError,
  BlobStoreError,
  BlobStoreFullError,
  BlobStoreUnavailableError,
} from "../../app/ports/blob-store.ts";

/** What an operator can do about the errors of S3 and of the way there, by code. */
const ADVICE: Readonly<Record<string, string>> = {
  AccessDenied:
    "the credentials do not allow it. Give them the permissions listed in docs/configuration.md, on this " +
    "bucket and prefix",
  AllAccessDisabled: "the bucket is disabled. Ask its provider",
  AuthorizationHeaderMalformed: "the region is wrong. Set the option region of the storage URL to the bucket's region",
  PermanentRedirect: "the bucket is elsewhere. Set the options region and endpoint of the storage URL to where it is",
  InvalidAccessKeyId:
    "the store does not know the access key. Check AWS_ACCESS_KEY_ID, or where else the credentials come from",
  // versitygw's word for it.
  XAdminUserNotFound:
    "the store does not know the access key. Check AWS_ACCESS_KEY_ID, or where else the credentials come from",
  InvalidToken: "the session token is not valid. Get new credentials",
  ExpiredToken: "the credentials have expired. Get new ones",
  SignatureDoesNotMatch:
    "the secret key is wrong. Check AWS_SECRET_ACCESS_KEY, or where else the credentials come from",
  NoSuchBucket: "the bucket does not exist. Create it, or correct the storage URL",
  InvalidBucketName: "the bucket's name is not valid. Correct the storage URL",
  RequestTimeTooSkewed: "the clocks of this machine and of the store differ too much. Set this machine's clock",
  CredentialsProviderError:
    "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a credentials file or " +
    "the role of the machine",
  AbortError:
    "the store does not answer in time. Check the option endpoint of the storage URL, and whether the store is " +
    "overloaded",
  TimeoutError:
    "the store cannot be reached in time. Check the option endpoint of the storage URL, and firewalls on the way",
  ECONNREFUSED: "nothing listens there. Check the option endpoint of the storage URL, and whether the store runs",
  ENOTFOUND: "the host does not exist. Check the option endpoint of the storage URL; many stores need pathStyle=true",
  EAI_AGAIN: "the host's name cannot be looked up. Check this machine's network and DNS",
  EPROTO: "the store does not speak TLS there. Check the scheme of the option endpoint (http or https)",
  ERR_SSL_WRONG_VERSION_NUMBER:
    "the store does not speak TLS there. Check the scheme of the option endpoint (http or https)",
};

/** Codes of Node.js for certificates that are not trusted. */
const UNTRUSTED =
  /^(?:DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT(?:_LOCALLY)?|CERT_HAS_EXPIRED|ERR_TLS_CERT_ALTNAME_INVALID)$/;

/** The store compared the bytes with a digest. Each server has its own word for it. */
const WRONG_DIGEST: ReadonlySet<string> = new Set([
  "BadDigest",
  "XAmzContentSHA256Mismatch",
  "XAmzContentChecksumMismatch",
  "ContentSHA256Mismatch",
]);

/**
 * Errors that pass, whatever the status: an answer to completing begins as a 200 before its outcome is known. The last
 * is what versitygw says when it removes an empty directory at the moment another call stores something in it.
 */
const PASSING: ReadonlySet<string> = new Set([
  "SlowDown",
  "InternalError",
  "ServiceUnavailable",
  "RequestTimeout",
  "ExistingObjectIsDirectory",
]);

/** There is no room, in the words of MinIO, versitygw, Ceph and others. */
const FULL: ReadonlySet<string> = new Set([
  "XMinioStorageFull",
  "XMinioAdminBucketQuotaExceeded",
  "InsufficientStorage",
  "InsufficientCapacity",
  "QuotaExceeded",
]);

/** Errors that a change of settings cures, not time. */
const LASTING: ReadonlySet<string> = new Set([
  "CredentialsProviderError",
  "ENOTFOUND",
  "EPROTO",
  "ERR_SSL_WRONG_VERSION_NUMBER",
]);

/** The code of an error of the SDK, of the network or of TLS. */
export function codeOf(error: unknown): string {
  const { Code, code, name } = (error ?? {}) as { Code?: unknown; code?: unknown; name?: unknown };
  for (const each of [Code, code, name]) if (typeof each === "string" && each !== "Error") return each;
  return "unknown";
}

/** The HTTP status of an answer; undefined when there was none. */
export function statusOf(error: unknown): number | undefined {
  const status = (error as { $metadata?: { httpStatusCode?: unknown } } | null)?.$metadata?.httpStatusCode;
  return typeof status === "number" ? status : undefined;
}

/** Whether the store says that there is no such unfinished object. */
export function isNoSuchUpload(error: unknown): boolean {
  return codeOf(error) === "NoSuchUpload";
}

/** Whether the store says that there is no such object. */
export function isNoSuchKey(error: unknown): boolean {
  const code = codeOf(error);
  return code === "NoSuchKey" || code === "NotFound";
}

/**
 * Turns an error of the SDK or of the network into one of the port, with what to do about it. The SDK's error itself is
 * not handed on: it may carry the signature of the request.
 * @param doing completes the sentence "Cannot ...".
 */
export function storeError(doing: string, error: unknown): BlobStoreError {
  if (error instanceof BlobStoreError) return error;
  const code = codeOf(error);
  const status = statusOf(error);
  const said = error instanceof Error && error.message !== "" ? error.message.split("\n", 1).join() : code;
  const cause = new Error(`${code}${status === undefined ? "" : ` (HTTP ${status})`}: ${said}`);
  if (WRONG_DIGEST.has(code)) {
    return new BlobDigestError(`Cannot ${doing}: the store found that the bytes do not have the declared SHA-256.`, {
      cause,
    });
  }
  if (isNoSuchUpload(error))
    return new BlobNotFoundError(`Cannot ${doing}: there is no such unfinished object.`, { cause });
  if (code !== "NoSuchBucket" && isNoSuchKey(error)) {
    return new BlobNotFoundError(`Cannot ${doing}: there is no such object.`, { cause });
  }
  if (FULL.has(code) || status === 507)
    return new BlobStoreFullError(`Cannot ${doing}: the store is full. Free space in it or enlarge it (${code}).`, {
      cause,
    });
  const advice =
    ADVICE[code] ??
    (UNTRUSTED.test(code)
      ? "the certificate of the store is not trusted. Name its CA's file by the option caFile of the storage " +
        "URL, or by NODE_EXTRA_CA_CERTS"
      : /region is missing/i.test(said)
        ? "there is no region. Set the option region of the storage URL, or AWS_REGION"
        : `the store says ${said}`);
  const message = `Cannot ${doing}: ${advice} (${code}).`;
  // An answer of success that cannot be read was cut off; the outcome of the call is unknown.
  const passing = status === undefined || status < 300 || status >= 500 || status === 429 || PASSING.has(code);
  const lasting = LASTING.has(code) || UNTRUSTED.test(code) || (status === 501 && code === "NotImplemented");
  return passing && !lasting
    ? new BlobStoreUnavailableError(message, { cause })
    : new BlobStoreError(message, { cause });
}
