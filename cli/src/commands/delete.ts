import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { confirm } from "../terminal/prompts.ts";
import { ALLOW_NO_ADMIN, DRY_RUN } from "./apply.ts";

/** `strongroom delete`. */
export const deleteCommand: CommandSpec = {
  name: "delete",
  summary: "take a configuration object out",
  details: "The versions of a collection stay: it is frozen until its object is back.",
  args: [
    ["<kind>", "BackupUser, BackupCollection, BackupCollectionDefaults, BackupOrganization, BackupNotifier or Secret"],
    ["<name>", "name of the object"],
  ],
  options: [OPTIONS.yes, DRY_RUN, ALLOW_NO_ADMIN, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom delete BackupUser bob", "asks first"],
    ["strongroom delete BackupUser bob --yes", "does not ask, for scripts"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [kind = "", name = ""] = args;
  const dryRun = values.get(DRY_RUN);
  const ask = !dryRun && !values.get(OPTIONS.yes);
  if (ask && context.stdin.isTTY !== true)
    throw new UsageError("There is no terminal to ask on.", { hint: "give --yes to delete without asking" });
  if (ask && !(await confirm(context, `Delete ${kind} ${name}?`))) {
    output.note("Nothing was deleted.");
    return EXIT.ok;
  }
  return await withClient(context, values, {}, async ({ client }) => {
    const { diff } = await client.admin.deleteObject(
      { kind, name, dryRun, allowNoAdmin: values.get(ALLOW_NO_ADMIN) },
      CALL,
    );
    if (!dryRun) context.achieved?.();
    if (output.isJson) output.json({ kind, name, dryRun, diff });
    else {
      if (dryRun) output.line(diff.trimEnd());
      output.note(`${kind} ${name}: ${dryRun ? "would be deleted" : "deleted"}`);
    }
    return EXIT.ok;
  });
}
