import test from "ava";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { ClockWatch } from "../src/app/upkeep/clock-watch.ts";
import { Sweeper } from "../src/app/upkeep/sweeper.ts";
import { INSTALLATION_KEY } from "../src/domain/object-keys.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { Harness } from "./support/harness.ts";

test("a sweep that hangs does not keep the server from stopping", async (t) => {
  const h = await Harness.open();
  t.teardown(() => h.deps.database.close());
  const inner = new MemoryBlobStore();
  await inner.put(INSTALLATION_KEY, (await h.deps.store.get(INSTALLATION_KEY, 4096))!);
  const store = new FaultyBlobStore(inner);
  const stall = store.stall("get", { nth: 1, when: "before" });
  const sweeper = new Sweeper({ ...h.over(store), clockWatch: new ClockWatch(h.deps) }, 3_600_000);
  sweeper.start();
  await stall.reached;
  // Without the bound this never comes back, and the test fails by its time limit.
  await sweeper.stop(10);
  stall.release();
  t.pass();
});

test("a look at the whole store that failed is tried again after minutes, not after a day", async (t) => {
  const h = await Harness.open();
  t.teardown(() => h.deps.database.close());
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("list", { when: "before" });
  let now = 0;
  const deps = { ...h.over(store), clockWatch: new ClockWatch(h.deps) };
  const sweeper = new Sweeper(deps, 3_600_000, undefined, () => now);
  const compared: (boolean | undefined)[] = [];
  for (const minutes of [0, 9, 10, 20, 24 * 60, 25 * 60]) {
    now = minutes * 60_000;
    compared.push((await sweeper.runOnce())?.compared);
  }
  t.deepEqual(compared, [false, false, true, false, false, true]);
  store.assertAllFired(t);
});
