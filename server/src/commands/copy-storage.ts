import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { interruptible } from "@strongroom/command-line/interruptible";
import { jsonLine } from "@strongroom/command-line/json";
import { flag, option } from "@strongroom/command-line/option";
import { SHARED } from "@strongroom/command-line/shared-options";
import { formatSize } from "@strongroom/protocol/sizes";
import type { BlobStore } from "../app/ports/blob-store.ts";
import type { CopiedObject } from "../app/upkeep/copy-storage.ts";
import type { OperatorCommand, OperatorInvocation } from "./context.ts";
import { asCommandError, requireDirectory } from "./open-data.ts";
import { storageOf } from "./settings.ts";

const from = option({ name: "from", value: "url", help: "storage URL to copy from, as for serve --storage" });
const to = option({
  name: "to",
  value: "url",
  help: "storage URL to copy to: empty, or of the same installation",
});

const leaveDamagedOption = flag({
  name: "leave-damaged",
  help:
    "give up what is damaged in the source or cannot be read there: copy the rest, name what was left, and complete " +
    "the copy",
  argumentsOnly: true,
});

/**
 * `strongroom copy-storage`: copies an installation's storage to another place. Exit code 0 when everything is in the
 * target, 1 when something failed.
 */
export const copyStorage: OperatorCommand = {
  name: "copy-storage",
  summary: "copy a server's storage to another place, such as from a directory to S3",
  details:
    "Copies all versions with their manifests, and compares their bytes with the manifests' digests on the way. Stop " +
    "the server first. What is in the target already is skipped, so it may be repeated, and goes on where it was " +
    "broken off. The target can be served when the command has ended with 0, or with 6 and --leave-damaged, which " +
    "leaves damaged versions behind. Nothing is changed in the source. " +
    "Credentials for S3 come from the environment (AWS_ACCESS_KEY_ID, ...), --env-file or a credentials file.",
  options: [from, to, leaveDamagedOption, SHARED.envFile, SHARED.json, SHARED.quiet],
  examples: [
    [
      "strongroom copy-storage --from file:///var/lib/strongroom/storage --to " +
        '"s3://backups/strongroom?region=eu-central-1"',
      "from the embedded directory to S3",
    ],
  ],
  run: async (invocation) => {
    try {
      return await interruptible(invocation.context, {}, (signal) => run(invocation, signal));
    } catch (error) {
      throw await asCommandError(error);
    }
  },
};

async function run({ values, context }: OperatorInvocation, signal: AbortSignal): Promise<ExitCode> {
  const [source, target] = [values.get(from), values.get(to)];
  if (source === undefined || target === undefined) {
    throw new UsageError("copy-storage needs --from and --to", {
      hint: "both are storage URLs, as for `strongroom serve --storage`",
    });
  }
  const places = [await storageOf(source, from, values), await storageOf(target, to, values)] as const;
  await requireDirectory(places[0], "--from", "objects");
  const [{ openStore }, { storeInstallation }, { copyStorage }] = await Promise.all([
    import("../adapters/stores.ts"),
    import("../app/installation.ts"),
    import("../app/upkeep/copy-storage.ts"),
  ]);
  const [json, quiet] = [values.get(SHARED.json), values.get(SHARED.quiet)];
  const say = (text: string) => context.stderr.write(`strongroom copy-storage: ${text}\n`);
  const log = { info: (_fields: Record<string, unknown>, message: string) => !quiet && say(message) };
  const opened: BlobStore[] = [];
  try {
    opened.push(await openStore(places[0], log));
    // Before the target is made: there may be nothing to copy.
    if ((await storeInstallation(opened[0]!)) === undefined)
      throw new CommandError("the source is not the storage of an installation; check --from", EXIT.refused);
    opened.push(await openStore(places[1], log));
    const leftKeys: string[] = [];
    const onObject = (object: CopiedObject) => {
      if (object.outcome === "left") leftKeys.push(object.key);
      if (!quiet || object.outcome === "failed" || object.outcome === "left")
        context.stderr.write(`${describe(object)}\n`);
    };
    const leaveDamaged = values.get(leaveDamagedOption);
    const report = await copyStorage({ from: opened[0]!, to: opened[1]!, signal, onObject, leaveDamaged });
    const { installation, copied, present, failed, left, bytes, pending } = report;
    if (json) {
      context.stdout.write(jsonLine({ installation, copied, present, failed, left: leftKeys, bytes, pending }));
    } else {
      context.stdout.write(
        `${failed > 0 ? "NOT COMPLETE" : left > 0 ? "All that could be read is in the target" : "Everything is in the target"}: ` +
          `${copied} objects copied (${formatSize(bytes)}), ${present} were there, ${failed} failed` +
          `${left === 0 ? "" : `, ${left} left behind`}\n`,
      );
    }
    if (pending > 0) say(`${pending} unfinished uploads were not copied; their clients begin again`);
    if (failed > 0) say("run the same command again; what is in the target already is skipped");
    if (failed > 0) return EXIT.unexpected;
    return left > 0 ? EXIT.integrity : EXIT.ok;
  } catch (error) {
    if (signal.aborted) say("stopped; run the same command again to go on");
    throw error;
  } finally {
    for (const store of opened) await store.close();
  }
}

function describe({ key, size, outcome, verified, problem }: CopiedObject): string {
  if (outcome === "left") return `LEFT     ${key}: ${problem}`;
  if (outcome === "failed") return `FAILED   ${key}: ${problem}`;
  if (outcome === "present") return `present  ${key}`;
  return `copied   ${key} (${formatSize(size)}${verified ? ", digests verified" : ""})`;
}
