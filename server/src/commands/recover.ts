import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { jsonLine } from "@strongroom/command-line/json";
import { SHARED } from "@strongroom/command-line/shared-options";
import { quantity } from "@strongroom/protocol/quantity";
import { formatSize } from "@strongroom/protocol/sizes";
import type { OperatorCommand, OperatorInvocation } from "./context.ts";
import { onData, requireDirectory } from "./open-data.ts";
import { DATA_OPTIONS, DRY_RUN } from "./options.ts";
import { dataOptions } from "./settings.ts";

/** `strongroom recover`: rebuilds an empty database from a store. */
export const recover: OperatorCommand = {
  name: "recover",
  summary: "rebuild a lost database from the storage",
  details:
    "The database was lost: makes a new one from the manifests in the store, with every version, its number and its " +
    "origin. The database must be empty, the server stopped. Nothing in the store is changed. After an interruption " +
    "run it again. Exit code 6: something is damaged or could not be restored, the rest was.",
  options: [DRY_RUN, SHARED.json, ...DATA_OPTIONS],
  examples: [
    ["strongroom recover --data /var/lib/strongroom --dry-run", "what would be restored"],
    [
      "strongroom recover --storage file:///backup/strongroom --database pglite:/var/lib/strongroom/database",
      "rebuild the database",
    ],
  ],
  run,
};

async function run({ values, context }: OperatorInvocation): Promise<ExitCode> {
  const options = await dataOptions(values, context.env);
  const [dryRun, json] = [values.get(DRY_RUN), values.get(SHARED.json)];
  await requireDirectory(options.storage, "--data and --storage");
  return await onData(options, context, async (log) => {
    const [{ openStorage }, { openStore }, { recover }] = await Promise.all([
      import("../main.ts"),
      import("../adapters/stores.ts"),
      import("../app/upkeep/recover.ts"),
    ]);
    const { store, database } = dryRun
      ? { store: await openStore(options.storage, log), database: undefined }
      : await openStorage(options, log);
    try {
      const onCollection = (name: string, versions: number) => {
        if (!json) context.stdout.write(`${name}: ${quantity(versions, "version")}\n`);
      };
      const report = await recover({ store, database, onCollection });
      if (json) context.stdout.write(jsonLine({ dryRun, ...report }));
      else {
        const lists = { damaged: report.damaged, "not restored": report.skipped, unknown: report.unknown };
        for (const [what, problems] of Object.entries(lists))
          for (const { key, why } of problems) context.stdout.write(`${what}: ${key}: ${why}\n`);
        context.stdout.write(
          `${dryRun ? "Would restore" : "Restored"} ${report.versions} version(s) of ${report.collections} ` +
            `collection(s), ${formatSize(report.bytes)}, and ${report.removed} removed one(s), for installation ` +
            `${report.installation}. Damaged ${report.damaged.length}, not restored ${report.skipped.length}, ` +
            `unknown ${report.unknown.length}, unfinished ${report.unfinished}.\n`,
        );
        if (dryRun) context.stdout.write("Only the storage was looked at; the real run needs an empty database.\n");
        else context.stdout.write("Start the server, and log in again: sessions were lost with the database.\n");
      }
      return report.damaged.length + report.skipped.length > 0 ? EXIT.integrity : EXIT.ok;
    } finally {
      await database?.close();
      await store.close();
    }
  });
}
