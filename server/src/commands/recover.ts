/**
 * `strongroom recover`. The CLI loads this module only for it.
 */

import { formatSize } from "@strongroom/protocol/sizes";
import { openStore } from "../adapters/stores.ts";
import { recover } from "../app/upkeep/recover.ts";
import { openStorage } from "../main.ts";
import type { CommandIo } from "./configuration.ts";
import { DATA_EXIT, jsonLine, requireStorage, runDataCommand } from "./open-data.ts";
import type { DataCommand } from "./options.ts";

const COMMAND: DataCommand = {
  name: "recover",
  usage: "[options]",
  about: `The database was lost: makes a new one from the manifests in the store, with every version, its number and where it came
from. The database must be empty, the server stopped. Nothing in the store is changed. After an interruption run it again.`,
  options: [
    { name: "dry-run", help: "look at the store only, and tell what would be restored" },
    { name: "json", help: "print one line of JSON" },
  ],
  positionals: 0,
  examples: [
    "strongroom recover --data /var/lib/strongroom --dry-run",
    "strongroom recover --storage file:///backup/strongroom --database pglite:/var/lib/strongroom/database",
  ],
};

/** `strongroom recover`: rebuilds an empty database from a store. Returns the exit code. */
export async function recoverCommand(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  io: CommandIo,
): Promise<number> {
  return await runDataCommand(COMMAND, args, env, io, async ({ server, own }, log) => {
    await requireStorage(server);
    const dryRun = own.has("dry-run");
    const json = own.has("json");
    const { store, database } = dryRun
      ? { store: await openStore(server.storage, log), database: undefined }
      : await openStorage(server, log);
    try {
      const onCollection = (name: string, versions: number) => {
        if (!json) io.stdout.write(`${name}: ${versions} version(s)\n`);
      };
      const report = await recover({ store, database, onCollection });
      if (json) io.stdout.write(jsonLine({ dryRun, ...report }));
      else {
        const lists = { damaged: report.damaged, "not restored": report.skipped, unknown: report.unknown };
        for (const [what, problems] of Object.entries(lists))
          for (const { key, why } of problems) io.stdout.write(`${what}: ${key}: ${why}\n`);
        io.stdout.write(
          `${dryRun ? "Would restore" : "Restored"} ${report.versions} version(s) of ${report.collections} collection(s), ${formatSize(report.bytes)}, and ${report.removed} removed one(s), for installation ${report.installation}. Damaged ${report.damaged.length}, not restored ${report.skipped.length}, unknown ${report.unknown.length}, unfinished ${report.unfinished}.\n`,
        );
        if (dryRun) io.stdout.write("Only the storage was looked at; the real run needs an empty database.\n");
        else io.stdout.write("Start the server, and log in again: sessions were lost with the database.\n");
      }
      return report.damaged.length + report.skipped.length > 0 ? DATA_EXIT.integrity : DATA_EXIT.ok;
    } finally {
      await database?.close();
      await store.close();
    }
  });
}
