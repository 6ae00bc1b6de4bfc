import type { CommandSpec } from "../command.ts";
import { UsageError } from "../errors.ts";
import { text } from "../option-spec.ts";
import { OPTIONS } from "../options.ts";
import { interruptible } from "../processes/signals.ts";
import { exitCodeFromServer } from "../server-arguments.ts";
import { loadServer } from "../server-modules.ts";

const from = text("--from <url>", "storage URL to copy from, as for serve --storage");
const to = text("--to <url>", "storage URL to copy to: empty, or of the same installation");

/** `strongroom copy-storage`. */
export const copyStorage: CommandSpec = {
  name: "copy-storage",
  summary: "copy a server's storage to another place, such as from a directory to S3",
  details:
    "Copies all versions with their manifests, and compares their bytes with the manifests' digests on the way. Stop the server first. What is in the target " +
    "already is passed over, so it may be repeated, and goes on where it was broken off. The target can be served when the command has ended with 0. Nothing " +
    "is changed in the source. Credentials for S3 come from the environment (AWS_ACCESS_KEY_ID, ...) or a credentials file.",
  options: [from, to, OPTIONS.json, OPTIONS.quiet],
  examples: [
    [
      'strongroom copy-storage --from file:///var/lib/strongroom/storage --to "s3://backups/strongroom?region=eu-central-1"',
      "from the embedded directory to S3",
    ],
  ],
  run: async ({ values, output, context }) => {
    const [source, target] = [values.get(from), values.get(to)];
    if (source === undefined || target === undefined) {
      throw new UsageError("copy-storage needs --from and --to", {
        hint: "both are storage URLs, as for `strongroom serve --storage`",
      });
    }
    const { copyStorageCommand } = await loadServer("copy-storage");
    const options = { from: source, to: target, json: output.isJson, quiet: values.get(OPTIONS.quiet) };
    const code = await interruptible(context, {}, (signal) => copyStorageCommand(options, context, signal));
    return exitCodeFromServer(code);
  },
};
