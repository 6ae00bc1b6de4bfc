import type { Decryption, DownloadResult, RetryEvent, Version } from "@strongroom/client-sdk";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { formatSize } from "@strongroom/protocol/sizes";
import type { Invocation } from "./command.ts";
import type { Sdk } from "./context.ts";
import { checkFits } from "./decryption-choice.ts";
import { type Destination, StdoutDestination, writeAll } from "./destination.ts";
import { FileDestination, safeFilename } from "./files/file-destination.ts";
import { OPTIONS } from "./options.ts";
import { patienceOf } from "./patience.ts";
import { CommandDestination } from "./processes/command-destination.ts";
import { withClient } from "./session/session.ts";
import { formatDuration } from "./terminal/format.ts";
import { formatRate, Progress, RateMeter } from "./terminal/progress.ts";
import { enumWord, versionReport } from "./terminal/reports.ts";

/** Where a version is to go. */
export type Target =
  | { kind: "command"; command: string }
  | { kind: "stdout" }
  | { kind: "file"; path: string }
  | { kind: "named-by-version" };

/** What to fetch, how to open it, and where to put it. */
export interface FetchRequest {
  readonly collection: string;
  /** Its number, or `newest`. */
  readonly number: bigint | "newest";
  readonly decryption: Decryption;
  readonly target: Target;
  /** `Restored`, `Downloaded`. */
  readonly verb: string;
}

interface Report {
  readonly request: FetchRequest;
  readonly sdk: Sdk;
  readonly result: DownloadResult;
  readonly destination: Destination;
  readonly ms: number;
}

/**
 * Fetches a version into its destination, which learns of the end only after every digest and the decryption were
 * verified.
 */
export async function fetchVersion({ context, values, output }: Invocation, request: FetchRequest): Promise<ExitCode> {
  const { target, decryption } = request;
  if (target.kind === "stdout") output.reserveStdout();
  const meter = new RateMeter(context.now);
  let state = { receivedBytes: 0n, totalBytes: 0n };
  const progress = new Progress(output, context.now, () => {
    const rate = meter.rate(state.receivedBytes);
    return (
      `${request.collection}: ${formatSize(state.receivedBytes)} of ` +
      `${formatSize(state.totalBytes)}${rate && `, ${rate}`}`
    );
  });
  const begun = context.now();
  const onInterrupt = () => progress.note("stopping; once more to stop at once");
  const connect = {
    giveUpAfterMs: patienceOf(values),
    onRetry: (event: RetryEvent) => progress.retrying(event),
    interruption: { timeoutMs: values.get(OPTIONS.timeout), onInterrupt },
  };
  return await withClient(context, values, connect, async ({ client, sdk, signal: outer }) => {
    const failure = new AbortController();
    const signal = AbortSignal.any([outer, failure.signal]);
    const destination = destinationFor({ context, values, output }, request, {
      sdk,
      progress,
      signal,
      abort: (reason) => failure.abort(reason),
    });
    if (destination instanceof FileDestination) await destination.check();
    progress.start();
    let result: DownloadResult;
    try {
      result = await client.download({
        collection: request.collection,
        number: request.number,
        decryption,
        sink: (chunk) => destination.write(chunk),
        onVersion: async (version) => {
          checkFits(decryption, version, sdk);
          await destination.open(version);
        },
        onProgress: (now) => {
          state = now;
          progress.resumed(now.resumes);
        },
        signal,
      });
      await destination.finish();
      if (target.kind !== "stdout") context.achieved?.();
    } catch (error) {
      await destination.discard();
      throw failure.signal.aborted ? failure.signal.reason : error;
    } finally {
      progress.stop();
    }
    report(output, { request, sdk, result, destination, ms: context.now() - begun });
    return EXIT.ok;
  });
}

interface Wiring {
  readonly sdk: Sdk;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  readonly abort: (reason: Error) => void;
}

function destinationFor(
  { context, values, output }: Pick<Invocation, "values" | "output" | "context">,
  request: FetchRequest,
  { sdk, progress, signal, abort }: Wiring,
): Destination {
  const { target, decryption } = request;
  const force = values.get(OPTIONS.force);
  const decrypts = decryption.kind !== "none";
  switch (target.kind) {
    case "stdout":
      return new StdoutDestination(context.stdout, signal);
    case "file":
      return new FileDestination(target.path, { force, decrypts });
    case "named-by-version":
      return new FileDestination(
        (version) => {
          return safeFilename(version, { decrypted: decrypts, decompressed: decrypts && isCompressed(version, sdk) });
        },
        { force, decrypts },
      );
    case "command":
      return new CommandDestination(target.command, {
        context,
        signal,
        abort,
        onStderr: (bytes) => progress.passThrough(bytes),
        // With --json standard output holds one object and nothing else.
        onStdout: (bytes) => (output.isJson ? progress.passThrough(bytes) : writeAll(context.stdout, bytes)),
      });
  }
}

function report(output: Invocation["output"], { request, sdk, result, destination, ms }: Report): void {
  const { version, outputBytes, resumes } = result;
  if (output.isJson) {
    const file = destination instanceof FileDestination ? destination.name : undefined;
    output.json({ ...versionReport(version, sdk), output: file, outputBytes, resumes, seconds: ms / 1000 });
    return;
  }
  const decoded =
    request.decryption.kind === "none" ? "" : ` (${formatSize(outputBytes)} ${decodedWords(version, sdk)})`;
  const again = resumes === 0 ? "" : `; resumed ${resumes === 1 ? "once" : `${resumes} times`}`;
  output.note(
    `${request.verb} version ${version.number} of ${version.collection} to ${destination.name}: ` +
      `${formatSize(version.sizeBytes)}${decoded} in ${formatDuration(ms)}, ` +
      `${formatRate(outputBytes, ms)}; verified${again}`,
  );
}

function decodedWords(version: Version, sdk: Sdk): string {
  return isCompressed(version, sdk) ? "decrypted and decompressed" : "decrypted";
}

/** Whether the SDK compressed it, and so decompresses it. */
function isCompressed(version: Version, sdk: Sdk): boolean {
  return enumWord(sdk.ContentEncoding, version.contentEncoding) === "zstd";
}
