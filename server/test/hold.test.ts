/** Held versions stay, whatever rotation and people want, until they are released. */
import { cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { sweep } from "../src/app/upkeep/sweep.ts";
import { finishCommit } from "../src/app/uploads/commit-upload.ts";
import { holdVersion, releaseVersion } from "../src/app/versions/hold-version.ts";
import { deleteVersion, getVersion, listVersions } from "../src/app/versions/versions.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { emptyTables, type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const DAY = 24 * 3_600_000;
const MESSAGE = openpgpMessage(1000);

const hold = (h: Harness, collection: string, number: bigint, reason = "evidence", by = h.admin) =>
  holdVersion(h.deps, by, { collection, number, reason });
const release = (h: Harness, collection: string, number: bigint, by = h.admin) =>
  releaseVersion(h.deps, by, { collection, number });
const numbers = async (h: Harness, collection: string) =>
  (await listVersions(h.deps, h.admin, { collection, beforeNumber: undefined, pageSize: 100 })).versions.map((v) =>
    Number(v.number),
  );

const NO_PERIODS = { keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };

/** Every strategy, with a backup a day, and what it keeps after six days, none held. */
const STRATEGIES: readonly { change: Partial<CollectionSpec>; keeps: number[] }[] = [
  { change: { maxBackupsCount: 2 }, keeps: [6, 5] },
  {
    change: {
      maxBackupsCount: 1,
      rotation: { strategy: "fifo-plus-older", older: { maxOlderCopies: 1, maxAgeMs: 3 * DAY } },
    },
    keeps: [],
  },
  { change: { rotation: { strategy: "gfs", counts: { keepLast: 2, ...NO_PERIODS } } }, keeps: [6, 5] },
  { change: { rotation: { strategy: "gfs", counts: { keepLast: 0, ...NO_PERIODS, keepDaily: 2 } } }, keeps: [6, 5] },
];

for (const { change, keeps } of STRATEGIES)
  test(`${JSON.stringify(change)}: a held version stays, nothing goes for it, and after its release it goes`, async (t) => {
    const { h } = t.context;
    const [held, plain] = [h.add(change), h.add(change)];
    for (let day = 1; day <= 6; day++) {
      for (const { name } of [held, plain]) await h.upload(name, MESSAGE);
      if (day === 1) await hold(h, held.name, 1n);
      h.clock.advance(DAY);
    }
    const without = await numbers(h, plain.name);
    if (keeps.length > 0) t.deepEqual(without, keeps);
    t.deepEqual(await numbers(h, held.name), [...without.filter((n) => n !== 1), 1], "as without, and the held one");
    await release(h, held.name, 1n);
    t.true((await numbers(h, held.name)).includes(1), "only the next backup rotates");
    const { removedNumbers } = await h.upload(held.name, MESSAGE);
    t.true(removedNumbers.includes(1n));
  });

test("nobody removes a held version; it says why, by whom and since when, and its manifest follows", async (t) => {
  const { h } = t.context;
  const { name } = h.add();
  await h.upload(name, MESSAGE);
  h.clock.advance(1000);
  const held = await hold(h, name, 1n);
  t.like(held, { held: true, holdReason: "evidence", heldBy: "user:admin", heldByAdmin: true, heldAt: h.clock.now });
  const error = await refused(t, "VERSION_PROTECTED", deleteVersion(h.deps, h.admin, { collection: name, number: 1n }));
  t.regex(error.message, /held: evidence/);
  t.is((await hold(h, name, 1n)).revision, held.revision, "idempotent");
  h.clock.advance(1000);
  t.like(await hold(h, name, 1n, "another"), { holdReason: "another", heldAt: h.clock.now });
  t.true((await sweep(h.deps, true)).manifests > 0);
  const free = await release(h, name, 1n);
  t.like(free, { held: false, holdReason: "", heldBy: "", heldByAdmin: false, heldAt: null });
  t.is((await release(h, name, 1n)).revision, free.revision, "idempotent");
  t.false((await deleteVersion(h.deps, h.admin, { collection: name, number: 1n })).alreadyRemoved);
  await refused(t, "VERSION_NOT_FOUND", hold(h, name, 1n));
  await refused(t, "VERSION_NOT_FOUND", release(h, name, 1n));
  const events = await (h.deps.database as SqlDatabase).query(
    sql`select kind, actor, details->>'reason' as reason from audit_events
        where collection_name = ${name} and kind in ('version.held', 'version.released') order by at`,
  );
  t.deepEqual(
    events.map((event) => Object.values(event)),
    [
      ["version.held", "user:admin", "evidence"],
      ["version.held", "user:admin", "another"],
      ["version.released", "user:admin", "another"],
    ],
  );
});

test("a tenant releases its own holds, and not those of systemAdmin", async (t) => {
  const { h } = t.context;
  const { name } = h.add({
    accessControl: [
      { userName: "tenant", roles: ["collectionManager"] },
      { userName: "bob", roles: ["backupUploader", "backupDownloader"] },
    ],
  });
  const tenant = principal(user("tenant"));
  await h.upload(name, MESSAGE);
  await hold(h, name, 1n, "mine", tenant);
  await release(h, name, 1n, tenant);
  await hold(h, name, 1n, "mine", tenant);
  await hold(h, name, 1n, "by order of a court");
  for (const call of [release(h, name, 1n, tenant), hold(h, name, 1n, "mine again", tenant)])
    t.regex((await refused(t, "ACCESS_DENIED", call)).message, /by order of a court.*only a systemAdmin/);
  // As systemAdmin he narrowed himself, so that is no systemAdmin's session.
  const roles = ["collectionManager" as const];
  const narrowed = { ...h.admin, scope: [{ type: "collection", name, roles }] };
  await refused(t, "ACCESS_DENIED", release(h, name, 1n, narrowed));
  await release(h, name, 1n);
  const bob = principal(user("bob"));
  await refused(t, "ACCESS_DENIED", hold(h, name, 1n, "mine", bob));
  await refused(t, "ACCESS_DENIED", release(h, name, 1n, bob));
});

test("systemAdmin takes over a tenant's hold with the same reason", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ accessControl: [{ userName: "tenant", roles: ["collectionManager"] }] });
  const tenant = principal(user("tenant"));
  await h.upload(name, MESSAGE);
  await hold(h, name, 1n, "evidence", tenant);
  const held = await hold(h, name, 1n, "evidence");
  t.like(held, { heldBy: "user:admin", heldByAdmin: true });
  await refused(t, "ACCESS_DENIED", release(h, name, 1n, tenant));
  t.is((await hold(h, name, 1n, "evidence", tenant)).revision, held.revision, "idempotent");
});

test("held versions count: where they leave no room, uploads are refused until one is released", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ maxBackupsCount: 2, maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(2 * MIB) });
  for (const number of [1n, 2n]) {
    await h.upload(name, openpgpMessage(MIB));
    await hold(h, name, number);
  }
  const error = await refused(t, "ROTATION_BLOCKED", h.upload(name, openpgpMessage(MIB)));
  t.regex(error.message, /held or protected versions leave no room.*strongroom release/);
  await release(h, name, 1n);
  t.deepEqual((await h.upload(name, openpgpMessage(MIB))).removedNumbers, [1n]);
});

/** An upload whose commit is prepared, and that waits for the store. */
async function prepared(h: Harness, name: string, size: number) {
  const { upload } = await h.begin(name);
  const segments = cutSegments(openpgpMessage(size), MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const { database } = h.deps;
  const number = await database.transaction(async (tx) => {
    const { id } = await tx.collections.lockByName(name);
    const versionNumber = await tx.collections.nextNumber(id);
    await tx.uploads.update(upload.id, "open", { state: "committing", versionNumber });
    return versionNumber;
  });
  return { number, row: (await database.read(async (tx) => await tx.uploads.find(upload.id)))! };
}

test("what a prepared commit is to replace cannot be held, where both do not fit", async (t) => {
  const { h } = t.context;
  const limits = { maxBackupsCount: 2, maxOneVersionSize: BigInt(MIB), maxCollectionSize: BigInt(2 * MIB) };
  const { name } = h.add(limits);
  for (let i = 0; i < 2; i++) await h.upload(name, openpgpMessage(MIB));
  const { row, number } = await prepared(h, name, MIB);
  t.is((await refused(t, "COLLECTION_BUSY", hold(h, name, 1n))).retryAfterMs, 1000);
  await hold(h, name, 2n);
  t.deepEqual((await finishCommit(h.deps, row)).removedNumbers, [1n]);
  t.deepEqual(await numbers(h, name), [Number(number), 2]);
  t.true((await h.usage(name)).storedBytes <= limits.maxCollectionSize);
});

test("a rebuild from the bucket brings the hold back", async (t) => {
  const h = await t.context.h.reset();
  const { name } = h.add();
  await h.upload(name, MESSAGE);
  const { holdReason, heldBy, heldByAdmin, heldAt, revision } = await hold(h, name, 1n, "before the move");
  await sweep(h.deps, true);
  await emptyTables(h.deps.database as SqlDatabase);
  await recover({ database: h.deps.database, store: h.deps.store });
  const found = await getVersion(h.deps, h.admin, { collection: name, number: 1n });
  t.like(found, { held: true, holdReason, heldBy, heldByAdmin, heldAt, revision });
});
