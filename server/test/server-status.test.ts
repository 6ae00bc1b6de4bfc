/** GetServerStatus, RunSweep and RunVerification over both databases: what they say, who may, and one run at a time. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { FORGOTTEN_MS, ReplicaSign } from "../src/app/upkeep/replica-sign.ts";
import { getServerStatus, type StatusDeps } from "../src/app/upkeep/server-status.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { noteSweep, SILENT_MS, UpkeepRuns } from "../src/app/upkeep/upkeep-runs.ts";
import { type Harness, harnessTest, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const ID = (n: number) => `00000000-0000-4000-8000-00000000000${n}`;

const sign = (h: Harness, n: number, version = "1.0.0") =>
  new ReplicaSign(h.deps, { id: ID(n), host: `host-${n}`, version });

const statusDeps = (h: Harness, change: Partial<StatusDeps> = {}): StatusDeps => ({
  ...h.deps,
  readiness: { check: async () => [{ name: "storage", ok: true, message: "fine" }] },
  replica: { id: ID(1), version: "1.0.0" },
  auditor: { problem: undefined, contradiction: undefined },
  databaseKind: "test",
  commit: "",
  ...change,
});

const runsOf = (h: Harness) => new UpkeepRuns(h.deps, { runOnce: async () => await sweep(h.deps, true) }, 10n ** 12n);

test("the status says what is there, and nobody but systemAdmin is told", async (t) => {
  const { h } = t.context;
  await sign(h, 1).renew();
  await sign(h, 2).renew();
  await noteSweep(h.deps.database, await sweep(h.deps, true), "server");
  const status = await getServerStatus(statusDeps(h), h.admin);
  t.like(status, { version: "1.0.0", clock: { status: "right" }, problems: { length: 0 } });
  t.like(status.storage, { kind: "memory" });
  t.regex(status.database.version, /^\d+/);
  t.true(status.database.migrations > 10);
  t.deepEqual(status.replicas.map(({ host, isThis, isAlive }) => [host, isThis, isAlive]).sort(), [
    ["host-1", true, true],
    ["host-2", false, true],
  ]);
  t.like(status.runs[0], { kind: "sweep", actor: "server", error: "", underWay: false, counts: { purged: 0 } });
  for (const roles of [[], ["userManager"], ["collectionManager"]] as const) {
    const caller = principal(user("ann", { roles: [...roles] }));
    await refused(t, "ACCESS_DENIED", getServerStatus(statusDeps(h), caller));
    await refused(t, "ACCESS_DENIED", runsOf(h).sweep(caller));
    await refused(t, "ACCESS_DENIED", runsOf(h).verify(caller, ""));
  }
  const narrowed = principal(h.admin.user, { accessKey: "key" });
  await refused(t, "ACCESS_DENIED", getServerStatus(statusDeps(h), narrowed));
});

test("replicas that are silent are not alive, and are forgotten after a day; one that ends is gone at once", async (t) => {
  const { h } = t.context;
  const names = async () => {
    const { replicas } = await getServerStatus(statusDeps(h), h.admin);
    return replicas.map(({ host, isAlive }) => `${host} ${isAlive}`).sort();
  };
  const [first, second] = [sign(h, 1), sign(h, 2)];
  await first.renew();
  await second.renew();
  h.clock.advance(5 * 60_000);
  await first.renew();
  t.deepEqual(await names(), ["host-1 true", "host-2 false"]);
  h.clock.advance(FORGOTTEN_MS);
  await first.renew();
  t.deepEqual(await names(), ["host-1 true"]);
  await first.stop();
  t.deepEqual(await names(), []);
});

test("problems say what to do: another version, a sweep that failed or is late, damage, readiness", async (t) => {
  const { h } = t.context;
  const problems = async (change: Partial<StatusDeps> = {}) =>
    (await getServerStatus(statusDeps(h, change), h.admin)).problems;
  await sign(h, 2, "2.0.0").renew();
  await noteSweep(h.deps.database, undefined, "server");
  const check = async () => [{ name: "storage", ok: false, message: "the store does not answer" } as const];
  const found = await problems({ readiness: { check } });
  t.deepEqual(
    found.map(({ name }) => name),
    ["storage", "versions", "sweep"],
  );
  t.true(found.every(({ advice }) => advice.length > 10));
  h.clock.advance(2 * 3_600_000);
  t.true((await problems()).some(({ message }) => message.startsWith("the last sweep ended")));
});

test("a verification that is asked for reads every version, says how far it is, and runs once at a time", async (t) => {
  const { h } = t.context;
  const runs = runsOf(h);
  for (const name of ["a", "b"]) {
    h.add({ name });
    await h.upload(name, openpgpMessage(2000));
  }
  const last = async () => {
    const { runs } = await getServerStatus(statusDeps(h), h.admin);
    return runs.find(({ kind }) => kind === "verification");
  };
  t.is(await last(), undefined);
  await refused(t, "COLLECTION_NOT_FOUND", runs.verify(h.admin, "none"));
  t.true(await runs.verify(h.admin, ""));
  await runs.idle();
  t.like(await last(), {
    actor: "user:admin",
    underWay: false,
    error: "",
    counts: { whole: 2, damaged: 0, unknown: 0 },
  });

  // Another server verifies: it has begun, and says so.
  await h.deps.database.transaction(
    async (tx) => await tx.records.beginRun("verification", "user:bob", tx.now, tx.now),
  );
  t.true((await last())!.underWay);
  t.false(await runsOf(h).verify(h.admin, "a"));
  // It died: it is not waited for.
  h.clock.advance(SILENT_MS + 1);
  t.false((await last())!.underWay);
  const again = runsOf(h);
  t.true(await again.verify(h.admin, "a"));
  await again.idle();
  t.like(await last(), { counts: { whole: 1, damaged: 0, unknown: 0 } });
});

test("sweeps that are asked for at once are one", async (t) => {
  const { h } = t.context;
  let sweeps = 0;
  const runs = new UpkeepRuns(
    h.deps,
    {
      runOnce: async () => {
        sweeps++;
        return await sweep(h.deps, true);
      },
    },
    1n,
  );
  const ended = await Promise.all([runs.sweep(h.admin), runs.sweep(h.admin), runs.sweep(h.admin)]);
  t.deepEqual(ended, [true, true, true]);
  t.true(sweeps < 3, String(sweeps));
});
