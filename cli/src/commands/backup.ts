import type { RetryEvent, UploadProgress, UploadResult } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { printable } from "@strongroom/command-line/printable";
import { shown } from "@strongroom/command-line/shown";
import { formatSize } from "@strongroom/protocol/sizes";
import { requiredCollection } from "../collection-argument.ts";
import type { CommandSpec, Invocation } from "../command.ts";
import { ENCRYPTION_OPTIONS, encryptionFor } from "../encryption-choice.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SECRETS, SESSION_SECRETS } from "../options.ts";
import { patienceOf } from "../patience.ts";
import { DumpCommand } from "../processes/dump-command.ts";
import { type Connection, withClient } from "../session/session.ts";
import { formatDuration } from "../terminal/format.ts";
import type { Output } from "../terminal/output.ts";
import { formatRate, Progress, RateMeter } from "../terminal/progress.ts";
import { versionReport } from "../terminal/reports.ts";
import { programName } from "../version.ts";

const EXAMPLE = 'strongroom backup pg-main --public-key backup.pub.asc -c "pg_dump app"';

/** `strongroom backup`. */
export const backup: CommandSpec = {
  name: "backup",
  summary: "encrypt a dump and store it as a new version",
  details:
    "The dump comes from a command (-c) or from standard input. A command is started when the server has answered. " +
    "With -c there is a version only if the command exits with 0, or with a code of --ok-exit, which marks the " +
    "version with a warning. Of a pipe that cannot be seen: an empty dump is refused, --min-size refuses one that is " +
    "too small, and " +
    "`set -o pipefail` tells the rest to your script.",
  args: [["[collection]", "name of the collection"]],
  options: [
    OPTIONS.dumpCommand,
    OPTIONS.okExit,
    ...ENCRYPTION_OPTIONS,
    OPTIONS.compress,
    OPTIONS.filename,
    OPTIONS.label,
    OPTIONS.minSize,
    OPTIONS.expectSize,
    OPTIONS.expectSha256,
    OPTIONS.trustEnd,
    OPTIONS.parallel,
    OPTIONS.memory,
    OPTIONS.spool,
    OPTIONS.spoolDir,
    OPTIONS.timeout,
    OPTIONS.retryFor,
    OPTIONS.wait,
    OPTIONS.collection,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  ],
  secrets: [...SESSION_SECRETS, SECRETS.passphrase],
  examples: [
    [EXAMPLE, "a database; a failing pg_dump stores nothing"],
    [
      "strongroom backup www --public-key backup.pub.asc --ok-exit 0,1 -c 'tar -c /srv/www'",
      "files that change meanwhile: tar exits with 1, and the version has a warning",
    ],
    [
      "tar -c /srv/www | strongroom backup www --recipient age1... --min-size 100M",
      "from a pipe, with age, refusing a suspiciously small one",
    ],
    [
      "strongroom backup pg-main --recipient backup@example.org --label env=prod -c 'pg_dumpall' --json",
      "with a key of the gpg keyring, for programs",
    ],
    ["gpg -e -r backup@example.org < dump | strongroom backup pg-main --encryption none", "encrypted by hand"],
  ],
  run,
};

async function run(invocation: Invocation): Promise<ExitCode> {
  const { args, values, output, context } = invocation;
  const collection = requiredCollection(args[0], values, EXAMPLE);
  const commandLine = values.get(OPTIONS.dumpCommand);
  if (commandLine === undefined && context.stdin.isTTY === true) {
    throw new UsageError("There is no dump: standard input is a terminal, and no command was given.", {
      hint: `for example: ${EXAMPLE}`,
    });
  }
  const labels = labelsOf(values.get(OPTIONS.label));
  const encryption = await encryptionFor(values, context);
  const minSize = values.get(OPTIONS.minSize) ?? 1n;
  const meter = new RateMeter(context.now);
  let state: Pick<UploadProgress, "sourceBytes" | "acknowledgedBytes" | "spooledBytes" | "remainingBytes"> = {
    sourceBytes: 0n,
    acknowledgedBytes: 0n,
    spooledBytes: 0n,
    remainingBytes: undefined,
  };
  const progress = new Progress(output, context.now, () => {
    const { sourceBytes, acknowledgedBytes, spooledBytes, remainingBytes } = state;
    const rate = meter.rate(acknowledgedBytes);
    const quota = remainingBytes === undefined ? "" : `, ${formatSize(remainingBytes)} of quota left`;
    const waiting = spooledBytes === 0n ? "" : `, ${formatSize(spooledBytes)} in the temporary file`;
    return (
      `${collection}: ${formatSize(sourceBytes)} read, ${formatSize(acknowledgedBytes)} ` +
      `stored${waiting}${rate && `, ${rate}`}${quota}`
    );
  });
  const begun = context.now();
  let committing = false;
  const onInterrupt = () =>
    progress.note(
      committing
        ? "stopping; all was sent already, so look with `strongroom ls` whether it became a version; once more " +
            "to stop at once"
        : "stopping, nothing will be stored; once more to stop at once",
    );
  const connect = {
    giveUpAfterMs: patienceOf(values),
    onRetry: (event: RetryEvent) => progress.retrying(event),
    interruption: { timeoutMs: values.get(OPTIONS.timeout), onInterrupt },
  };

  const upload = async ({ client, signal }: Connection) => {
    const dump =
      commandLine === undefined
        ? undefined
        : new DumpCommand(commandLine, {
            env: context.childEnv,
            killGraceMs: context.killGraceMs,
            onStderr: (bytes) => progress.passThrough(bytes),
            minSize,
            okExit: values.get(OPTIONS.okExit),
          });
    // At once, not only after the server was notified: a dump that goes on locks tables and burns time.
    const endDump = () => void dump?.end();
    signal.addEventListener("abort", endDump, { once: true });
    progress.start();
    try {
      return await client.upload({
        collection,
        source: dump?.output(signal) ?? context.stdin,
        encryption,
        compression: values.get(OPTIONS.compress),
        labels,
        clientMetadata: { program: programName(), host: context.hostname },
        minSize,
        // Of a command the exit status says whether it is whole.
        trustSourceEnd: values.get(OPTIONS.trustEnd) || dump !== undefined,
        signal,
        ...optional("waitMs", values.get(OPTIONS.wait)),
        onWait: (wait) => progress.waiting(collection, wait),
        onProgress: (now) => {
          state = now;
          progress.resumed(now.resumes);
        },
        ...optional("filename", values.get(OPTIONS.filename)),
        ...optional("expectedSourceSize", values.get(OPTIONS.expectSize)),
        ...optional("expectedSourceSha256", values.get(OPTIONS.expectSha256)),
        ...optional("parallel", values.get(OPTIONS.parallel)),
        ...optional("memoryLimit", values.get(OPTIONS.memory)),
        ...optional("spoolLimit", values.get(OPTIONS.spool)),
        ...optional("spoolDirectory", values.get(OPTIONS.spoolDir)),
        beforeCommit: async () => {
          const warning = await dump?.succeeded(signal);
          committing = true;
          return warning;
        },
      });
    } catch (error) {
      await dump?.end();
      throw error;
    } finally {
      signal.removeEventListener("abort", endDump);
      progress.stop();
    }
  };

  return await withClient(context, values, connect, async (connection) => {
    const result = await upload(connection);
    context.achieved?.();
    report(output, result, connection.sdk, context.now() - begun);
    return EXIT.ok;
  });
}

function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: V });
}

function labelsOf(given: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const label of given) {
    const at = label.indexOf("=");
    if (at < 1) throw new UsageError(`--label: expected key=value, got ${shown(label)}`);
    labels[label.slice(0, at)] = label.slice(at + 1);
  }
  return labels;
}

function report(output: Output, result: UploadResult, sdk: Connection["sdk"], ms: number): void {
  const { version, removedNumbers, sourceBytes, sentBytes, mostSpooledBytes, resumes, compressed } = result;
  if (output.isJson) {
    output.json({
      ...versionReport(version, sdk),
      sourceBytes,
      sentBytes,
      mostSpooledBytes,
      compressed,
      rotatedOut: removedNumbers,
      resumes,
      seconds: ms / 1000,
    });
    return;
  }
  const line = storedLine(result, ms);
  if (warningsOf(version).length > 0) output.warn(line);
  else output.note(line);
}

/** `Stored version 12 of pg-main: 1.2 GiB (3.4 GiB before compression) in 21 s, 165.79 MiB/s; rotated out: 5`. */
export function storedLine(
  { version, removedNumbers, sourceBytes, resumes, compressed }: UploadResult,
  ms: number,
): string {
  const before = compressed ? ` (${formatSize(sourceBytes)} before compression)` : "";
  const rotated = removedNumbers.length === 0 ? "" : `; rotated out: ${removedNumbers.join(", ")}`;
  const again = resumes === 0 ? "" : `; resumed ${resumes === 1 ? "once" : `${resumes} times`}`;
  const warned = warningsOf(version).map((warning) => `; WARNING: ${warning}`);
  return (
    `Stored version ${version.number} of ${version.collection}: ${formatSize(version.sizeBytes)}${before} in ` +
    `${formatDuration(ms)}, ` +
    `${formatRate(sourceBytes, ms)}${rotated}${again}${warned.join("")}`
  );
}

/** A version this many times smaller than usual is remarked on; health goes by the collection's own `shrunkFactor`. */
const SMALL_FACTOR = 4n;

/** What somebody should look at, of a version that was stored. */
function warningsOf({
  clientMetadata: { warning },
  sizeBytes,
  usualSizeBytes,
}: Pick<UploadResult["version"], "clientMetadata" | "sizeBytes" | "usualSizeBytes">): string[] {
  const warnings = warning === undefined ? [] : [printable(warning)];
  if (usualSizeBytes > 0n && sizeBytes * SMALL_FACTOR < usualSizeBytes)
    warnings.push(`far below the usual ${formatSize(usualSizeBytes)}; look at what makes the dump`);
  return warnings;
}
