import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import { listVersions } from "../src/app/versions/versions.ts";
import type { Harness } from "./support/harness.ts";
import { harnessTest, MIB } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const DAY = 24 * 3_600_000;

/** Uploads with the clock ahead for two of the first four, then one more each day. */
async function uploadAround(h: Harness, name: string, aheadMs: number): Promise<bigint[]> {
  const removed: bigint[] = [];
  const upload = async () => removed.push(...(await h.upload(name, openpgpMessage(1000))).removedNumbers);
  await upload();
  h.clock.advance(aheadMs);
  await upload();
  await upload();
  h.clock.advance(-aheadMs);
  for (let day = 0; day < 3; day++) {
    h.clock.advance(DAY);
    await upload();
  }
  return removed;
}

for (const [title, aheadMs] of [
  ["an hour", DAY / 24],
  ["two days", 2 * DAY],
  ["a year", 365 * DAY],
] as const) {
  test(`versions begun while the clock was ${title} ahead hold no place of rotation`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ maxBackupsCount: 3 });
    t.deepEqual(await uploadAround(h, name, aheadMs), [1n, 2n, 3n]);
    const { versions } = await listVersions(h.deps, h.admin, {
      collection: name,
      beforeNumber: undefined,
      pageSize: 9,
    });
    t.deepEqual(
      versions.map(({ number }) => number),
      [6n, 5n, 4n],
    );
  });

  test(`the newest version is the one with the highest number, also when the clock was ${title} ahead`, async (t) => {
    const { h } = t.context;
    const { name } = h.add({ maxBackupsCount: 6, maxOneVersionSize: BigInt(MIB) });
    await uploadAround(h, name, aheadMs);
    const health = await getCollectionHealth(
      { ...h.deps, sha256: () => "" },
      { principal: h.admin, secret: undefined },
      name,
    );
    t.is(health.newest!.number, 6n);
    const [figures] = (await collectionFigures(h.deps)).collections;
    t.deepEqual(figures!.newestAt, h.clock.now);
  });
}
