import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@strongroom/gen/google/rpc/error_details_pb";
import { ObjectFindingsSchema, ObjectsToCommitSchema } from "@strongroom/gen/strongroom/v1/admin_service_pb";
import { ERROR_DOMAIN, REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import { CODES, type CodeName, codeOf } from "../calls/codes.ts";
import { MAX_ERROR_LENGTH, plainText } from "../calls/plain-text.ts";
import { DomainError } from "../domain/errors.ts";

interface Detail<D extends DescMessage = DescMessage> {
  desc: D;
  value: MessageInitShape<D>;
}

const detail = <D extends DescMessage>(desc: D, value: MessageInitShape<D>): Detail<D> => ({ desc, value });

const camelCase = (name: string) => name.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** What Connect calls a code. */
export function connectCode(name: CodeName): Code {
  return Code[camelCase(name) as keyof typeof Code];
}

/** What this server calls one of Connect's codes. */
export function codeName(code: Code): CodeName {
  return Code[code].replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase() as CodeName;
}

/** Characters of findings in the details of an error, which travel in headers. */
const MAX_FINDINGS_LENGTH = 3000;

/** The first items that are no longer together than so many characters of JSON, and one at least. */
function fitting<T>(items: readonly T[], most: number): T[] {
  let length = 0;
  return items.filter((item, index) => {
    length += JSON.stringify(item).length;
    return index === 0 || length <= most;
  });
}

/** What a caller sent may be in a text, as long as it was. */
const bounded = (text: string) => plainText(text, MAX_ERROR_LENGTH);

/**
 * Whether an error is a fault of the server rather than an answer to the caller; such errors are logged with their
 * stack.
 */
export function isFault(error: unknown): boolean {
  return !(error instanceof ConnectError) && codeOf(error) === undefined;
}

/**
 * The one place where errors become Connect codes with details. What is no answer to the caller says nothing of what
 * happened inside.
 */
export function toConnectError(error: unknown, requestId: string): ConnectError {
  const headers = { [REQUEST_ID_HEADER]: requestId };
  if (error instanceof ConnectError) {
    error.metadata.set(REQUEST_ID_HEADER, requestId);
    return error;
  }
  const requestInfo = detail(RequestInfoSchema, { requestId });
  if (!(error instanceof DomainError)) {
    const code = codeOf(error);
    if (code !== undefined) return new ConnectError((error as Error).message, connectCode(code), headers);
    const info = detail(ErrorInfoSchema, { reason: "INTERNAL", domain: ERROR_DOMAIN });
    const message = `a fault of the server; its log has it under request id ${requestId}`;
    return new ConnectError(message, Code.Internal, headers, [info, requestInfo]);
  }
  const message = bounded(error.message);
  const details: Detail[] = [
    detail(ErrorInfoSchema, {
      reason: error.reason,
      domain: ERROR_DOMAIN,
      metadata: Object.fromEntries(Object.entries(error.metadata).map(([key, value]) => [key, bounded(value)])),
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
      detail(QuotaFailureSchema, { violations: [{ subject: error.metadata.limit ?? "", description: message }] }),
    );
  }
  if (error.findings.length > 0) {
    const findings = error.findings.map(({ file, line, path, reason }) => ({
      file: bounded(file),
      line,
      path: bounded(path),
      reason: bounded(reason),
    }));
    details.push(detail(ObjectFindingsSchema, { findings: fitting(findings, MAX_FINDINGS_LENGTH) }));
  }
  if (error.toCommit.length > 0) details.push(detail(ObjectsToCommitSchema, { objects: [...error.toCommit] }));
  if (error.reason === "INVALID_REQUEST") {
    const violation = { field: bounded(error.metadata.field ?? ""), description: message };
    details.push(detail(BadRequestSchema, { fieldViolations: [violation] }));
  }
  return new ConnectError(message, connectCode(CODES[error.reason]), headers, details, error.cause);
}
