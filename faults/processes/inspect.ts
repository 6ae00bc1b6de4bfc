import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { ConfigFilesSource } from "@strongroom/server/adapters/config-files/source";
import { DEFAULT_UPLOAD_SETTINGS } from "@strongroom/server/app/settings";
import { sweep } from "@strongroom/server/app/upkeep/sweep";
import { SegmentAttempts } from "@strongroom/server/app/uploads/segment-attempts";
import { INSTALLATION_KEY, manifestKey } from "@strongroom/server/domain/object-keys";
import { wrongCounters } from "../simulation/oracle.ts";
import { takeSnapshot } from "../simulation/snapshot.ts";
import type { Setup } from "./setups.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
const THREE_DAYS = 3 * 24 * 3_600_000;

/**
 * Looks at database and store while no server runs: counters equal rows; and when every lease and delay is over and the
 * sweeper was there, nothing is reserved or open, and the store holds exactly the live versions. @returns what is
 * wrong.
 */
export async function inspect(setup: Setup, data: string, collection: string): Promise<string[]> {
  const config = await ConfigFilesSource.open(join(data, "config"));
  let ahead = 0;
  const { database, store } = await setup.open(() => new Date(Date.now() + ahead));
  try {
    const look = async () => await takeSnapshot((query) => database.query(query), [collection], "");
    const before = await look();
    const wrong = wrongCounters(before);
    ahead = THREE_DAYS;
    const deps = { database, store, config, settings: DEFAULT_UPLOAD_SETTINGS, log: SILENT, newId: randomUUID };
    const report = await sweep({ ...deps, attempts: new SegmentAttempts() }, true);
    if (report.failed > 0) wrong.push(`the sweep failed at ${report.failed} things`);
    const after = await look();
    wrong.push(...wrongCounters(after));
    for (const { id, state, reserved } of after.uploads) {
      if (state === "open" || state === "committing" || reserved > 0)
        wrong.push(`upload ${id} is ${state} with ${reserved} bytes`);
    }
    const live = after.versions.filter((v) => v.state === "live");
    if (live.length < before.versions.filter((v) => v.state === "live").length)
      wrong.push("the sweep removed a live version");
    const expected = [INSTALLATION_KEY, ...live.flatMap((v) => [v.key, manifestKey(v.key)])];
    const found = (await Array.fromAsync(store.list(""))).map(({ key }) => key);
    wrong.push(
      ...found.filter((key) => !expected.includes(key)).map((key) => `${key} is in the store without a version`),
    );
    wrong.push(...expected.filter((key) => !found.includes(key)).map((key) => `${key} is missing in the store`));
    wrong.push(...(await Array.fromAsync(store.listPending())).map(({ key }) => `${key} is unfinished`));
    return wrong;
  } finally {
    await database.close();
    await store.close();
  }
}
