/** A process that writes events into the audit log of a PostgreSQL database and chains them, until it is ended. */
import { chainEvents } from "../../src/app/audit/chain.ts";
import { openServer } from "./databases.ts";

const database = await openServer(process.argv[2]!);
for (let nth = 0; ; nth++) {
  await database.transaction(async (tx) => {
    const details = { nth: String(nth), process: String(process.pid) };
    for (let i = 0; i < 40; i++)
      await tx.audit({ kind: "version.removed", actor: "server", collectionName: "c", details });
  });
  await chainEvents(database);
  if (nth === 0) process.stdout.write("chains\n");
}
