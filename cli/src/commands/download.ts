import type { ExitCode } from "@strongroom/command-line/exit-codes";
import { requiredCollection } from "../collection-argument.ts";
import type { CommandSpec, Invocation } from "../command.ts";
import { DECRYPTION_OPTIONS, decryptionFor } from "../decryption-choice.ts";
import { fetchVersion, type Target } from "../fetch-version.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SECRETS, SESSION_SECRETS } from "../options.ts";
import { refuseTerminal } from "./restore.ts";

const EXAMPLE = "strongroom download pg-main";

/** `strongroom download`. */
export const download: CommandSpec = {
  name: "download",
  summary: "fetch a version into a file as it is stored, or decrypted when a key is given",
  details:
    "The file is written as FILE.partial and renamed when every digest was verified. By hand it opens with " +
    "`gpg -d` or `age -d`, and `zstd -d` where its name says .zst.",
  args: [["[collection]", "name of the collection"]],
  options: [
    OPTIONS.output,
    OPTIONS.force,
    OPTIONS.version,
    ...DECRYPTION_OPTIONS,
    OPTIONS.timeout,
    OPTIONS.retryFor,
    OPTIONS.collection,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  ],
  secrets: [...SESSION_SECRETS, SECRETS.passphrase],
  examples: [
    [EXAMPLE, "the newest, still encrypted"],
    ["strongroom download pg-main --version 7 --output v7.gpg", "a certain one under a name of yours"],
    ["strongroom download pg-main --output - | gpg -d | zstd -d > app.sql", "opened with stock tools"],
  ],
  run: async (invocation: Invocation): Promise<ExitCode> => {
    const { args, values, context } = invocation;
    const collection = requiredCollection(args[0], values, EXAMPLE);
    const path = values.get(OPTIONS.output);
    const target: Target =
      path === undefined ? { kind: "named-by-version" } : path === "-" ? { kind: "stdout" } : { kind: "file", path };
    refuseTerminal(target, invocation);
    const decryption = (await decryptionFor(values, context)) ?? { kind: "none" as const };
    return await fetchVersion(invocation, {
      collection,
      number: values.get(OPTIONS.version) ?? "newest",
      decryption,
      target,
      verb: "Downloaded",
    });
  },
};
