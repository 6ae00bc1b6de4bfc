import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { listVersions } from "../src/app/versions/versions.ts";
import type { GfsCounts } from "../src/domain/gfs.ts";
import { type Harness, harnessTest, MIB } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const DAY = 24 * 3_600_000;
const COUNTS: GfsCounts = { keepLast: 2, keepHourly: 0, keepDaily: 3, keepWeekly: 2, keepMonthly: 0, keepYearly: 0 };

/** Numbers of the live versions, the newest first. */
async function numbers(h: Harness, collection: string): Promise<number[]> {
  const { versions } = await listVersions(h.deps, h.admin, { collection, beforeNumber: undefined, pageSize: 100 });
  return versions.map(({ number }) => Number(number));
}

async function daily(h: Harness, collection: string, days: number, bytes = 1000): Promise<void> {
  for (let day = 0; day < days; day++) {
    await h.upload(collection, openpgpMessage(bytes));
    h.clock.advance(DAY);
  }
}

test("gfs keeps the last, the days and the weeks, in the transaction that publishes", async (t) => {
  const { h } = t.context;
  h.clock.now = new Date("2026-06-01T02:00:00Z"); // a Monday
  const { name } = h.add({ rotation: { strategy: "gfs", counts: COUNTS }, maxCollectionSize: BigInt(30 * MIB) });
  await daily(h, name, 28);
  // Version 28 is of Sunday 28 June; weeks end with versions 21 and 14.
  t.deepEqual(await numbers(h, name), [28, 27, 26, 25, 24, 21, 14]);
});

test("gfs: what the next version replaces makes room for it", async (t) => {
  const { h } = t.context;
  const { name } = h.add({
    rotation: { strategy: "gfs", counts: { ...COUNTS, keepLast: 1, keepDaily: 0, keepWeekly: 0 } },
    maxOneVersionSize: BigInt(MIB),
    maxCollectionSize: BigInt(2 * MIB),
  });
  await h.upload(name, openpgpMessage(MIB + MIB / 2));
  t.deepEqual(await numbers(h, name), [1]);
  await h.upload(name, openpgpMessage(MIB + MIB / 2));
  t.deepEqual(await numbers(h, name), [2]);
});

test("fifo-plus-older keeps older copies where there is room, and lets the oldest go first", async (t) => {
  const { h } = t.context;
  const older = { maxOlderCopies: 4, maxAgeMs: 40 * DAY };
  const { name } = h.add({
    rotation: { strategy: "fifo-plus-older", older },
    maxBackupsCount: 2,
    maxOneVersionSize: BigInt(MIB),
    maxCollectionSize: BigInt(6 * MIB),
  });
  const bytes = MIB - MIB / 4;
  await daily(h, name, 60, bytes);
  const before = await numbers(h, name);
  t.deepEqual(before.slice(0, 2), [60, 59]);
  t.is(before.length, 6);
  t.true(before.at(-1)! >= 20, `the oldest of ${before} is older than 40 days`);

  // Beside the newest two there is room for two more of these.
  h.collections.set(name, { ...h.collections.get(name)!, maxCollectionSize: BigInt(3 * MIB + MIB / 4) });
  await h.upload(name, openpgpMessage(bytes));
  t.deepEqual(await numbers(h, name), [61, 60, before[2], before[3]]);
  const usage = await h.usage(name);
  t.true(usage.storedBytes <= BigInt(3 * MIB + MIB / 4), String(usage.storedBytes));
});
