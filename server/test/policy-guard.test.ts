/** A change of configuration that would remove many versions at once waits until somebody names their number. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollectionHealth } from "../src/app/collections/collections.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { confirmPolicy, removalsWith } from "../src/app/versions/confirm-policy.ts";
import { holdVersion } from "../src/app/versions/hold-version.ts";
import { listVersions } from "../src/app/versions/versions.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { mustWait, removalRules } from "../src/domain/policy-guard.ts";
import { collection, type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const HOUR = 3_600_000;
const MESSAGE = openpgpMessage(1000);
const GUARDED = { removalShare: 0.5 };

const numbers = async (h: Harness, name: string) => {
  const input = { collection: name, beforeNumber: undefined, pageSize: 100 };
  return (await listVersions(h.deps, h.admin, input)).versions.map((v) => Number(v.number));
};
const confirm = (h: Harness, name: string, removes: number, by = h.admin) =>
  confirmPolicy(h.deps, by, { collection: name, removes });
const policyOf = async (h: Harness, name: string) => {
  const caller = { principal: h.admin, secret: undefined };
  const { checks } = await getCollectionHealth({ ...h.deps, sha256: String }, caller, name);
  return checks.find((check) => check.name === "policy")!;
};
const filled = async (h: Harness, count: number, change: Partial<CollectionSpec> = {}) => {
  const spec = h.add({ maxBackupsCount: 10, maxOneVersionSize: BigInt(MIB), ...GUARDED, ...change });
  for (let i = 0; i < count; i++) {
    await h.upload(spec.name, MESSAGE);
    h.clock.advance(HOUR);
  }
  return spec;
};
const NO_PERIODS = { keepLast: 0, keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };

/** Changes after which one version or two are left of eight. */
const CHANGES: readonly Partial<CollectionSpec>[] = [
  { maxBackupsCount: 2 },
  { rotation: { strategy: "gfs", counts: { ...NO_PERIODS, keepDaily: 1 } } },
  { maxBackupsCount: 1, rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 1, maxAgeMs: 48 * HOUR } } },
];

for (const change of CHANGES)
  test(`${JSON.stringify(change)}: nothing goes until the number is confirmed`, async (t) => {
    const { h } = t.context;
    const spec = await filled(h, 8);
    t.is((await policyOf(h, spec.name)).status, "ok");
    const changed = { ...spec, ...change };
    const { removes, live, waits } = await h.deps.database.read(async (tx) => await removalsWith(tx, changed));
    t.deepEqual([live, waits], [8, true], "whoever changes the configuration can know before");
    h.collections.set(spec.name, changed);
    await sweep(h.deps, true);
    const before = await policyOf(h, spec.name);
    t.like(before, { status: "warning", since: h.clock.now });
    t.true(before.advice.includes(`strongroom confirm-policy ${spec.name} ${removes}\``), before.advice);
    h.clock.advance(HOUR);
    t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
    const now = (await h.deps.database.read(async (tx) => await removalsWith(tx, changed))).removes;
    t.is(now, removes + 1);
    const wrong = await refused(t, "ROTATION_BLOCKED", confirm(h, spec.name, removes));
    t.like(wrong.metadata, { guard: "policy", removes: String(now), live: "9" });
    t.deepEqual(await confirm(h, spec.name, now), { removes: now, live: 9 });
    await confirm(h, spec.name, now);
    t.is((await policyOf(h, spec.name)).status, "ok");
    t.is((await numbers(h, spec.name)).length, 9, "nothing goes before the next backup");
    // One is an older copy yet; it counts, since it goes with its age.
    const older = changed.rotation.strategy === "fifo-plus-older" ? 1 : 0;
    t.is((await h.upload(spec.name, MESSAGE)).removedNumbers.length, now - older);
  });

test("few removals, and those of rules that were in force before, wait for nobody", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 8);
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 5 });
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, [1n, 2n, 3n, 4n], "half of eight is not more");
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 1 });
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 5 });
  await sweep(h.deps, true);
  t.is((await policyOf(h, spec.name)).status, "ok", "the change was undone");
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, [5n, 6n]);
  const three = await filled(h, 3);
  h.collections.set(three.name, { ...three, maxBackupsCount: 2 });
  t.deepEqual((await h.upload(three.name, MESSAGE)).removedNumbers, [1n, 2n], "two are not many");
});

test("several small changes wait as the large one would, until a week has passed or somebody names the number", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 12, { maxBackupsCount: 12 });
  const lower = (maxBackupsCount: number) => h.collections.set(spec.name, { ...spec, maxBackupsCount });
  const removed = async () => (await h.upload(spec.name, MESSAGE)).removedNumbers.length;
  lower(8);
  t.is(await removed(), 5, "of 12");
  lower(6);
  t.is(await removed(), 0, "three more would be 7 of 12");
  t.is((await policyOf(h, spec.name)).status, "warning");
  const { removes } = await h.deps.database.read(async (tx) => await removalsWith(tx, { ...spec, maxBackupsCount: 6 }));
  await confirm(h, spec.name, removes);
  t.is(await removed(), removes);
  h.clock.advance(8 * 24 * HOUR);
  lower(5);
  t.is(await removed(), 2, "a change of its own");
});

test("a collection that is taken out and put back with other rules waits too, and another name takes nothing", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 8);
  h.collections.delete(spec.name);
  await sweep(h.deps, true);
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 1 });
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
  const renamed = h.add({ ...spec, name: `${spec.name}-renamed`, maxBackupsCount: 1 });
  await h.upload(renamed.name, MESSAGE);
  t.is((await numbers(h, spec.name)).length, 9, "what has another name takes nothing of it");
});

test("where nothing may go and no room is left, the refusal names the number and the command", async (t) => {
  const { h } = t.context;
  const limits = { maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(4 * MIB), maxBackupsCount: 4 };
  const spec = h.add({ ...limits, ...GUARDED });
  for (let i = 0; i < 4; i++) await h.upload(spec.name, openpgpMessage(MIB));
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 1 });
  const error = await refused(t, "ROTATION_BLOCKED", h.upload(spec.name, openpgpMessage(MIB)));
  t.like(error.metadata, { guard: "policy", removes: "4" });
  t.true(error.message.includes(`strongroom confirm-policy ${spec.name} 4\``), error.message);
  await confirm(h, spec.name, 4);
  t.deepEqual((await h.upload(spec.name, openpgpMessage(MIB))).removedNumbers, [1n, 2n, 3n, 4n]);
});

test("only systemAdmin confirms, as only systemAdmin changes the rules", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 4, { accessControl: [{ userName: "tenant", roles: ["collectionManager"] }] });
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 1 });
  const error = await refused(t, "ACCESS_DENIED", confirm(h, spec.name, 4, principal(user("tenant"))));
  t.like(error.metadata, { action: "confirm-policy" });
});

test("rules that were never kept wait too: of an older server, or of a rebuilt database", (t) => {
  const rules = collection("c", GUARDED);
  t.true(mustWait({ removes: 3, live: 5 }, rules, null));
  t.false(mustWait({ removes: 2, live: 2 }, rules, null));
  t.false(mustWait({ removes: 3, live: 6 }, rules, null));
  t.false(mustWait({ removes: 5, live: 5 }, rules, removalRules(rules)));
  t.false(mustWait({ removes: 5, live: 5 }, { ...rules, removalShare: 1 }, null), "100% is never");
});

test("a change that lets itself through is judged by the share before it, and every rule counts", (t) => {
  const rules = collection("c", GUARDED);
  const change = { removes: 5, live: 8 };
  t.true(mustWait(change, { ...rules, maxBackupsCount: 1, removalShare: 1 }, removalRules(rules)));
  const off = { ...rules, removalShare: 1 };
  t.true(
    mustWait(change, { ...off, maxBackupsCount: 1, removalShare: 0.5 }, removalRules(off)),
    "and by its own where that is stricter",
  );
  const changes: Partial<CollectionSpec>[] = [
    { maxBackupsCount: 7 },
    { minRetentionMs: HOUR },
    { rotationGuard: "shrunk" },
    { removalShare: 0.4 },
    { rotation: { strategy: "gfs", counts: NO_PERIODS } },
    { rotation: { strategy: "gfs", counts: NO_PERIODS }, timezone: "Europe/Warsaw" },
    { rotation: { strategy: "gfs", counts: { ...NO_PERIODS, keepYearly: 1 } } },
    { rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 1, maxAgeMs: HOUR } } },
    { rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 1, maxAgeMs: HOUR } }, maxCollectionSize: 1n },
  ];
  const texts = [rules, ...changes.map((other) => ({ ...rules, ...other }))].map(removalRules);
  t.is(new Set(texts).size, texts.length);
  t.is(removalRules({ ...rules, timezone: "Europe/Warsaw" }), removalRules(rules), "fifo counts no periods");
});

/** Rules by which no more than half of twelve versions go, and those by which one is left. */
const UNTIL_LATER: readonly {
  readonly title: string;
  readonly before: Partial<CollectionSpec>;
  readonly after: Partial<CollectionSpec>;
  readonly hold?: true;
}[] = [
  { title: "protected", before: { minRetentionMs: 40 * HOUR }, after: { maxBackupsCount: 1 } },
  { title: "held", before: {}, after: { maxBackupsCount: 1 }, hold: true },
  {
    title: "protected, with periods",
    before: { minRetentionMs: 40 * HOUR },
    after: { rotation: { strategy: "gfs", counts: { ...NO_PERIODS, keepYearly: 1 } } },
  },
  {
    title: "young enough",
    before: {},
    after: {
      maxBackupsCount: 1,
      rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 30, maxAgeMs: 20 * HOUR } },
    },
  },
  {
    title: "young enough, of a longer time",
    before: {
      maxBackupsCount: 1,
      rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 30, maxAgeMs: 1000 * HOUR } },
    },
    after: { rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 30, maxAgeMs: 20 * HOUR } } },
  },
];

for (const { title, before, after, hold } of UNTIL_LATER)
  test(`${title}: what only stays for a while counts as going, before it goes and in the same number`, async (t) => {
    const { h } = t.context;
    const spec = await filled(h, 12, { maxBackupsCount: 30, maxCollectionSize: BigInt(90 * MIB), ...before });
    const held = { collection: spec.name, reason: "looked at" };
    if (hold)
      for (const number of await numbers(h, spec.name))
        await holdVersion(h.deps, h.admin, { ...held, number: BigInt(number) });
    h.collections.set(spec.name, { ...spec, ...after });
    const { removes, live, waits } = await h.deps.database.read(
      async (tx) => await removalsWith(tx, h.collections.get(spec.name)!),
    );
    t.deepEqual([live, waits], [12, true]);
    t.true(removes >= 11, String(removes));
    t.is((await policyOf(h, spec.name)).status, "warning");
    t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
    h.clock.advance(42 * HOUR);
    t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, [], "nobody confirmed it");
    t.is((await numbers(h, spec.name)).length, 14);
    const { message } = await policyOf(h, spec.name);
    const said = Number(/(\d+) of 14 versions would go, with the next backup or in time/.exec(message)?.[1]);
    t.deepEqual(await confirm(h, spec.name, said), { removes: said, live: 14 });
    t.is((await policyOf(h, spec.name)).status, "ok");
  });

test("steps whose removals protection puts off wait as the whole would", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 12, { maxBackupsCount: 12, minRetentionMs: 40 * HOUR });
  const lower = async (maxBackupsCount: number) => {
    h.collections.set(spec.name, { ...spec, maxBackupsCount });
    t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
    return (await policyOf(h, spec.name)).status;
  };
  t.is(await lower(9), "ok", "4 of 12");
  t.is(await lower(6), "warning", "3 more, and those 4");
  t.is(await lower(1), "warning");
  h.clock.advance(42 * HOUR);
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
});

test("a lower minRetention counts what it protected: such versions go sooner", async (t) => {
  const { h } = t.context;
  const long = { maxBackupsCount: 2, minRetentionMs: 1000 * HOUR };
  // Published without; the configuration has lengthened it since.
  const spec = await filled(h, 2, { maxBackupsCount: 2 });
  h.collections.set(spec.name, { ...spec, ...long });
  for (let i = 0; i < 6; i++) await h.upload(spec.name, MESSAGE);
  const rules = h.collections.get(spec.name)!;
  const shorter = { ...rules, minRetentionMs: 10 * HOUR };
  const { removes } = await h.deps.database.read(async (tx) => await removalsWith(tx, shorter));
  t.is(removes, 2, "the others were published with that protection, and keep it");
});

test("protection and ages that are as ever wait for nobody", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 12, { maxBackupsCount: 3, minRetentionMs: 40 * HOUR });
  h.collections.set(spec.name, { ...spec, maxBackupsCount: 4 });
  t.is((await policyOf(h, spec.name)).status, "ok", "more stay");
  await h.upload(spec.name, MESSAGE);
  h.clock.advance(42 * HOUR);
  t.is((await h.upload(spec.name, MESSAGE)).removedNumbers.length, 10);
  const rotation = { strategy: "fifo-plus-older" as const, older: { maxOlderCopies: 20, maxAgeMs: 1000 * HOUR } };
  const older = await filled(h, 12, { maxBackupsCount: 2, rotation });
  h.collections.set(older.name, { ...older, maxBackupsCount: 3 });
  t.is((await policyOf(h, older.name)).status, "ok", "older copies that were older copies before");
});

test("a raised share holds once a systemAdmin has confirmed it, so that the next change is not let through by it", async (t) => {
  const { h } = t.context;
  const spec = await filled(h, 8);
  const set = (change: Partial<CollectionSpec>) => h.collections.set(spec.name, { ...spec, ...change });
  set({ removalShare: 1 });
  await h.upload(spec.name, MESSAGE);
  const raised = await policyOf(h, spec.name);
  t.is(raised.status, "ok");
  t.regex(raised.message, /confirm-policy c-\d+ 0`\), until then 50%/);
  set({ removalShare: 1, maxBackupsCount: 1 });
  t.deepEqual((await h.upload(spec.name, MESSAGE)).removedNumbers, []);
  t.is((await policyOf(h, spec.name)).status, "warning");
  set({ removalShare: 1 });
  await confirm(h, spec.name, 1);
  t.is((await policyOf(h, spec.name)).message, "rotation goes by the rules that are configured");
  set({ removalShare: 1, maxBackupsCount: 1 });
  t.is((await h.upload(spec.name, MESSAGE)).removedNumbers.length, 10);
});
