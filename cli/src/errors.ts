import type { StrongroomError } from "@strongroom/client-sdk";
import { CommandError, reasonOfName } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { formatSize } from "@strongroom/protocol/sizes";
import { formatDuration, formatTime } from "./terminal/format.ts";

type Sdk = typeof import("@strongroom/client-sdk");

/** No usable session on this side. */
export class NotLoggedInError extends CommandError {
  override name = "NotLoggedInError";

  constructor(message: string, url: string) {
    super(message, EXIT.authentication, { hint: loginHint(url) });
  }
}

/** The command of `-c`, or the other end of a pipe, failed. */
export class CommandFailedError extends CommandError {
  override name = "CommandFailedError";

  constructor(message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, EXIT.commandFailed, options);
  }
}

/** Something that the server found wrong in configuration objects. */
export interface ObjectFinding {
  /** The file of the command, or one of the server's directory. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** The field; empty for a whole document. */
  readonly path: string;
  readonly reason: string;
}

/** Documents that the server refused, with everything that is wrong. */
export class ObjectsInvalidError extends CommandError {
  override name = "ObjectsInvalidError";
  readonly findings: readonly ObjectFinding[];

  /**
   * @param file where the documents are from, `-` for standard input
   * @param count how many findings there are, where the server sent only the first
   */
  constructor(file: string, findings: readonly ObjectFinding[], count: number, refusal: StrongroomError) {
    const all = count === 1 ? "a finding" : `${count} findings`;
    const more = count > findings.length ? ` (these are the first ${findings.length})` : "";
    super(`the configuration would not be valid, nothing was written: ${all}${more}.`, EXIT.usage, {
      reason: refusal.reason,
      cause: refusal,
    });
    // The server calls the documents `-`, and its own files by their names.
    const name = file === "-" ? "standard input" : file;
    this.findings = findings.map(({ file: where, line, path, reason }) => ({
      file: where === "-" ? name : where,
      line,
      path,
      reason,
    }));
  }
}

/** The message for a person about an error, and what the program exits with. */
export interface Explanation {
  readonly message: string;
  readonly hint?: string;
  readonly exitCode: ExitCode;
  /**
   * Stable name for programs, in capitals: the server's reason, the operating system's code, or the kind of the error.
   */
  readonly reason: string;
  /** For the server's log. */
  readonly requestId?: string;
  /** What is wrong in detail, where the error has a list of it. */
  readonly findings?: readonly ObjectFinding[];
}

/** The one place that turns an error, the SDK's or this program's, into words and an exit code. */
export async function explain(
  error: unknown,
  url: string | undefined,
  loadSdk: () => Promise<Sdk>,
): Promise<Explanation> {
  // An own error may come back wrapped: the SDK reports a failed dump command as the cause of its SourceError.
  for (let link: unknown = error, depth = 0; link instanceof Error && depth < 8; link = link.cause, depth++) {
    if (link instanceof CommandError) {
      // What a command says in place of the server's words is still about that call.
      const { requestId } = (link.cause ?? {}) as { requestId?: unknown };
      return {
        message: link.message,
        exitCode: link.exitCode,
        reason: link.reason,
        ...(link.hint === undefined ? {} : { hint: link.hint }),
        ...(link instanceof ObjectsInvalidError ? { findings: link.findings } : {}),
        ...(typeof requestId === "string" && requestId !== "" ? { requestId } : {}),
      };
    }
  }
  if (isSystemError(error)) return { message: systemMessage(error), exitCode: EXIT.unexpected, reason: error.code };
  const sdk = await loadSdk();
  if (error instanceof sdk.StrongroomError || (error instanceof Error && error.name === "ConnectError")) {
    return explainSdk(sdk.toStrongroomError(error, url === undefined ? {} : { url }), sdk, url);
  }
  const message = error instanceof Error ? error.message : String(error);
  return {
    message: `unexpected: ${message}`,
    hint: "STRONGROOM_DEBUG=1 shows where",
    exitCode: EXIT.unexpected,
    reason: "UNEXPECTED",
  };
}

function explainSdk(error: StrongroomError, sdk: Sdk, url: string | undefined): Explanation {
  const hint = hintFor(error, sdk, url);
  return {
    message: error instanceof sdk.MinSizeError ? minSizeMessage(error) : error.message,
    exitCode: sdkExitCode(error, sdk),
    reason: error.reason || reasonOfName(error.name),
    ...(hint === undefined ? {} : { hint }),
    ...(error.requestId ? { requestId: error.requestId } : {}),
  };
}

/** Exit code of an error of the SDK. */
export function sdkExitCode(error: StrongroomError, sdk: Sdk): ExitCode {
  const { refused, integrity } = EXIT;
  // The SDK counts a fault of the server among what may pass; for whoever watches a cron job it is no network trouble.
  if (error.reason === "INTERNAL") return EXIT.unexpected;
  const table: ReadonlyArray<readonly [abstract new (...args: never[]) => StrongroomError, ExitCode]> = [
    [sdk.AuthenticationError, EXIT.authentication],
    [sdk.AccessDeniedError, refused],
    [sdk.NotFoundError, refused],
    [sdk.QuotaExceededError, refused],
    [sdk.PolicyRefusedError, refused],
    [sdk.MinSizeError, refused],
    [sdk.DumpMismatchError, refused],
    [sdk.InvalidRequestError, EXIT.usage],
    [sdk.EncryptionError, EXIT.usage],
    [sdk.UnavailableError, EXIT.network],
    [sdk.IntegrityError, integrity],
    [sdk.DecryptionError, integrity],
    [sdk.SourceError, EXIT.commandFailed],
    [sdk.SpoolError, EXIT.unexpected],
  ];
  return table.find(([type]) => error instanceof type)?.[1] ?? EXIT.unexpected;
}

function minSizeMessage({ sourceBytes, minSize }: { sourceBytes: bigint; minSize: bigint }): string {
  if (sourceBytes === 0n) return "the dump is empty";
  const exact = (bytes: bigint) => `${formatSize(bytes)} (${bytes} bytes)`;
  return `the dump has ${exact(sourceBytes)}, less than --min-size, ${exact(minSize)}`;
}

function hintFor(error: StrongroomError, sdk: Sdk, url: string | undefined): string | undefined {
  if (error instanceof sdk.AuthenticationError) {
    return error.reason === "CREDENTIALS_INVALID" ? undefined : loginHint(url);
  }
  if (error instanceof sdk.MinSizeError) return "nothing was stored; look at what makes the dump";
  if (error instanceof sdk.InvalidRequestError && error.metadata.missing?.includes("trustSourceEnd") === true)
    return "give --expect-size BYTES or --expect-sha256 DIGEST, or --trust-end";
  if (error.reason === "COLLECTION_NOT_FOUND" || error.reason === "VERSION_NOT_FOUND")
    return "`strongroom ls` shows what this session may see";
  if (error.reason === "OBJECT_EXISTS") return "`strongroom set-password 'USER$KEY'` gives it another password";
  if (error instanceof sdk.EncryptionError) return "look at the keys given with --public-key or --recipient";
  if (error instanceof sdk.DecryptionError)
    return "is it the right private key and passphrase? `strongroom download` fetches the ciphertext itself";
  // The message says what to do; no bytes were received.
  if (error.reason === "UPLOAD_LOST") return undefined;
  if (error instanceof sdk.IntegrityError)
    return "the bytes that were received must not be used; tell the operator of the server";
  if (error.reason === "COLLECTION_BUSY")
    return "`strongroom uploads COLLECTION` shows what holds the places; --abort ID frees that of a backup that died";
  if (error instanceof sdk.UnavailableError && error.isUndecided)
    return (
      "the server goes on with the commit by itself: look with `strongroom ls COLLECTION` before the backup is made " +
      "again (--retry-for waits longer), and with `strongroom health COLLECTION` why it takes so long"
    );
  if (error instanceof sdk.UnavailableError && error.uploadId !== "")
    return (
      `begin the backup again when ${error.reason === "" ? "the server is back" : "that is mended"} ` +
      "(--retry-for waits longer); if the collection is busy then, " +
      `\`strongroom uploads COLLECTION --abort ${error.uploadId}\` frees the place of this one`
    );
  const nextVersion = error.metadata?.next_version_at;
  if (nextVersion !== undefined)
    return `the next version is taken from ${formatTime(new Date(nextVersion), error.metadata?.timezone)} on`;
  const nextWindow = error.metadata?.next_window_at;
  if (nextWindow !== undefined)
    return `the next upload window opens at ${formatTime(new Date(nextWindow), error.metadata?.timezone)}`;
  if (error.retryAfterMs !== undefined && error.retryAfterMs > 0)
    return `try again in ${formatDuration(error.retryAfterMs)}`;
  return undefined;
}

function loginHint(url: string | undefined): string {
  return `log in with: strongroom login${url === undefined ? "" : ` --url ${url}`} --username NAME`;
}

interface SystemError extends Error {
  readonly code: string;
  readonly path?: string;
  readonly dest?: string;
}

/** Whether the operating system refused something (`ENOENT`, `EACCES`, `ENOSPC`, ...). */
export function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && "syscall" in error && "code" in error && typeof error.code === "string";
}

const SYSTEM_WORDS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied",
  EPERM: "not permitted",
  ENOSPC: "no space left on the device",
  EROFS: "the file system is read-only",
  EISDIR: "is a folder, a file was expected",
  ENOTDIR: "is no folder",
  EEXIST: "exists already",
  EDQUOT: "the disk quota is used up",
};

/** `/etc/key.asc: permission denied`. */
export function systemMessage(error: Error & { code?: string; path?: string }): string {
  const words = SYSTEM_WORDS[error.code ?? ""] ?? error.message;
  return error.path === undefined ? words : `${error.path}: ${words}`;
}
