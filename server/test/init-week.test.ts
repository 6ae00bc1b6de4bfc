/** What `init` writes, used for a week. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { initConfiguration } from "../src/adapters/config-files/first-configuration.ts";
import { loadConfiguration } from "../src/adapters/config-files/source.ts";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { type Harness, harnessTest } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const HOUR = 3_600_000;
const SOFT = 20_000;

for (const [maxBackupsCount, days] of [
  [1, 1],
  [2, 1],
  [7, 7],
] as const) {
  test(`hourly backups for ${days} days by what init writes, ${maxBackupsCount} copies without a byte to spare`, async (t) => {
    const { h } = t.context;
    const dir = await mkdtemp(join(tmpdir(), "strongroom-init-"));
    t.teardown(async () => await rm(dir, { recursive: true, force: true }));
    const collectionName = `week-${maxBackupsCount}`;
    const config = join(dir, "config");
    await initConfiguration({
      dir: config,
      collectionName,
      hashPassword: async () => "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
      randomBytes: (count) => Buffer.alloc(count, 7),
      limits: {
        maxBackupsCount,
        maxOneVersionSize: String(SOFT),
        maxCollectionSize: String(maxBackupsCount * SOFT),
      },
    });
    const loaded = await loadConfiguration(config);
    t.deepEqual(loaded.problems, []);
    const spec = h.add(loaded.configuration.collections.get(collectionName)!);
    t.is(spec.maxAgeMs, 36 * HOUR);
    t.is(spec.minRetentionMs, maxBackupsCount === 1 ? undefined : (maxBackupsCount - 1) * HOUR);
    const health = async () => {
      const caller = { principal: h.admin, secret: undefined };
      return (await getCollectionHealth({ ...h.deps, sha256: String }, caller, collectionName)).status;
    };
    for (let hour = 1; hour <= days * 24; hour++) {
      const { version } = await h.upload(collectionName, openpgpMessage(SOFT));
      t.is(version.number, BigInt(hour));
      h.clock.advance(HOUR);
      if (hour % 24 === 0) await sweep(h.deps, true);
    }
    t.is(await health(), "ok");
    h.clock.advance(36 * HOUR);
    t.is(await health(), "failed", "and health notices that no more come");
  });
}
