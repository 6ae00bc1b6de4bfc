/**
 * A process that holds a named lock of a PostgreSQL database until it is ended. Arguments: the URL, and how long it may
 * be silent, in milliseconds.
 */
import { openServer } from "./databases.ts";

const [url, idle] = process.argv.slice(2);
const database = await openServer(url!, undefined, 1, { lockIdleMs: Number(idle) });
await database.exclusively("sweep", async () => {
  process.stdout.write("held\n");
  await new Promise((resolve) => setTimeout(resolve, 600_000));
});
