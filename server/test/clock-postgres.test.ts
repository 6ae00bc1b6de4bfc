/** A real server over a real PostgreSQL whose machine's clock is two days ahead for a while (libfaketime). */
import { setTimeout as sleep } from "node:timers/promises";
import { HealthStatus } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { type FakeClock, fakeClock, hasFaketime } from "@strongroom/testkit/peers/faketime";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import test from "ava";
import { sql } from "drizzle-orm";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { confirmClock } from "../src/app/upkeep/clock-watch.ts";
import { openServer, POSTGRES_PROGRAMS } from "./support/databases.ts";
import { collection, user } from "./support/harness.ts";
import { bearer, framesOf, LiveServer, reasonOf } from "./support/live-server.ts";

const DAY_S = 24 * 3600;
const COUNTS = { keepLast: 1, keepHourly: 0, keepDaily: 1, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };
const MESSAGE = openpgpMessage(1000);

/** Puts PostgreSQL's clock ahead of the real one, and waits until the server has read it. */
async function jump(clock: FakeClock, database: SqlDatabase, aheadSeconds: number): Promise<void> {
  await clock.setAhead(aheadSeconds);
  for (;;) {
    const now = await database.read(async (tx) => tx.now.getTime());
    if (Math.abs(now - Date.now() - aheadSeconds * 1000) < 60_000) return;
    await sleep(100);
  }
}

test("PostgreSQL's clock is two days ahead for a while and comes back: logins, rotation, health, purging", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS) || !hasFaketime(t)) return;
  t.timeout(120_000);
  const clock = await fakeClock();
  const postgres = await startPostgres({}, undefined, clock.env);
  const url = await postgres.createDatabase("ahead");
  const database = await openServer(url);
  const store = new MemoryBlobStore();
  const admin = user("ann", { passwordHash: "hash of right", roles: ["collectionManager"] });
  const gfs = collection("gfs", { rotation: { strategy: "gfs", counts: COUNTS }, maxBackupsCount: 9 });
  const open = async () =>
    await LiveServer.open([admin], [collection("fifo", { maxBackupsCount: 2, maxParallelUploads: 9 }), gfs], {
      database,
      store,
      rateLimits: { login: { count: 3, perMs: 3_600_000 }, health: undefined, requests: undefined },
    });
  let live = await open();
  try {
    const login = async () => {
      const { token } = await live.clients.sessions.login({ username: "ann", password: "right" });
      return bearer(token);
    };
    let auth = await login();
    const upload = async (name: string): Promise<number[]> => {
      const { upload } = await live.clients.uploads.createUpload({ collection: name }, auth);
      const segments = cutSegments(MESSAGE, Number(upload!.segmentSizeBytes));
      for (const segment of segments)
        await live.clients.uploads.writeSegment(framesOf(upload!.uploadId, segment), auth);
      const input = {
        uploadId: upload!.uploadId,
        sizeBytes: BigInt(MESSAGE.length),
        compositeSha256: compositeOf(segments),
      };
      return (await live.clients.uploads.commitUpload(input, auth)).removedNumbers.map(Number);
    };
    /** Ends an upload, after which the server looks at the clock and sweeps. */
    const swept = async (isExpected: (status: string) => boolean): Promise<void> => {
      const { upload } = await live.clients.uploads.createUpload({ collection: "fifo" }, auth);
      await live.clients.uploads.abortUpload({ uploadId: upload!.uploadId }, auth);
      while (!isExpected((await clockCheck("fifo")).status)) await sleep(100);
    };
    const clockCheck = async (name: string) => {
      const { checks } = await live.clients.collections.getCollectionHealth({ collection: name }, auth);
      const { status, message } = checks.find((check) => check.name === "clock")!;
      return { status: HealthStatus[status], message };
    };
    const purged = async () =>
      (await database.query(sql`select count(*)::int as n from versions where state = 'purged'`))[0]!.n;

    for (const name of ["fifo", "gfs"]) for (let i = 0; i < 2; i++) await upload(name);
    await live.clients.versions.deleteVersion({ collection: "fifo", number: 1n }, auth);
    await swept((status) => status === "OK");
    const { upload: living } = await live.clients.uploads.createUpload({ collection: "fifo" }, auth);

    await jump(clock, database, 2 * DAY_S);
    auth = await login();
    t.deepEqual(await upload("gfs"), [], "in the minute before the leap is seen");
    await swept((status) => status === "WARNING");
    t.regex((await clockCheck("gfs")).message, /leapt forward by 2d/);
    t.deepEqual(await upload("gfs"), []);
    await upload("fifo");
    await live.clients.uploads.renewUpload({ uploadId: living!.uploadId }, auth);

    await jump(clock, database, 0);
    for (let i = 0; i < 3; i++) auth = await login();
    t.is(await reasonOf(live.clients.sessions.login({ username: "ann", password: "wrong" })), "CREDENTIALS_INVALID");
    t.is((await clockCheck("gfs")).status, "FAILED");
    await live.close();
    live = await open();
    t.deepEqual(await upload("gfs"), [], "behind what was seen, also after a restart");
    await swept((status) => status === "FAILED");
    t.deepEqual(await upload("fifo"), [2], "by number: not the one dated ahead");
    await live.clients.uploads.renewUpload({ uploadId: living!.uploadId }, auth);

    await confirmClock(database);
    t.deepEqual(await upload("gfs"), [2, 3, 4, 5], "all of one day, also those dated ahead");
    t.deepEqual(await upload("fifo"), [3], "the one dated ahead");
    await swept((status) => status === "OK");
    t.is((await clockCheck("gfs")).status, "OK");
    t.is(await purged(), 0);
    for (const number of [1n, 2n, 3n])
      await live.clients.versions.undeleteVersion({ collection: "fifo", number }, auth);
  } finally {
    await live.close();
    await database.close();
    await postgres.remove();
    await clock.remove();
  }
});
