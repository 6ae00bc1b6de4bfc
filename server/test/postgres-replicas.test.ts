/** What several servers on one PostgreSQL database do to each other's segments, keys, budgets and verifications. */

import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { Harness, MIB, refused, TestClock, user } from "./support/harness.ts";
import { bearer, LiveServer, reasonOf } from "./support/live-server.ts";

const test = anyTest as TestFn;
const DAY_MS = 24 * 3_600_000;
test.after.always(async () => await removeSharedCluster());

/** Two servers on one database and one store. */
async function replicas(): Promise<{ one: Harness; two: Harness; clock: TestClock; close: () => Promise<void> }> {
  const url = await (await sharedCluster()).createDatabase();
  const clock = new TestClock();
  const open = async () => await openServer(url, () => clock.now, 10);
  const [a, b] = [await open(), await open()];
  const one = Harness.on(a, clock, new MemoryBlobStore());
  const two = Harness.on(b, clock, one.deps.store);
  return { one, two, clock, close: async () => void (await Promise.all([a.close(), b.close()])) };
}

test.serial("a segment sent to two servers: only the newest attempt settles, with its bytes", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { one, two, close } = await replicas();
  const spec = one.add();
  two.collections.set(spec.name, spec);
  const { upload } = await one.begin(spec.name);
  const message = openpgpMessage(500_000);
  const [segment] = cutSegments(message, MIB);
  const wake = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  async function* slow() {
    yield segment!.bytes.subarray(0, 1000);
    reading.resolve();
    await wake.promise;
    yield segment!.bytes.subarray(1000);
  }
  const older = one.write(upload.id, segment!, slow());
  await reading.promise;
  await two.write(upload.id, segment!, chunked(segment!.bytes));
  wake.resolve();
  await refused(t, "SEGMENT_SUPERSEDED", older);
  await one.assertInvariants(t);
  const { version } = await one.commit(upload.id, [segment!]);
  const stored: Uint8Array[] = [];
  const row = await one.deps.database.read(async (tx) => await tx.versions.findById(version.id));
  for await (const chunk of one.deps.store.read(row!.key, 0n, row!.size, new AbortController().signal))
    stored.push(chunk.slice());
  t.true(Buffer.concat(stored).equals(message));
  await one.assertInvariants(t);
  await close();
});

test.serial(
  "two servers rotate the signing key at once: one new key, and both verify old and new tokens",
  async (t) => {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
    const { one, two, clock, close } = await replicas();
    const signers = async () =>
      await Promise.all([one, two].map(async (h) => await JoseSigner.fromDatabase(h.deps.database)));
    const token = async (signer: JoseSigner) =>
      await signer.sign({
        subject: "ann",
        issuedAt: clock.now,
        expiresAt: new Date(clock.now.getTime() + 365 * DAY_MS),
      });
    const [before] = await signers();
    const tokens = [await token(before!)];
    clock.advance(91 * DAY_MS);
    const rotated = await signers();
    for (const signer of rotated) tokens.push(await token(signer));
    t.is((await one.deps.database.read(async (tx) => await tx.sessions.signingKeys())).length, 2);
    for (const signer of rotated) for (const each of tokens) t.true(await signer.verify(each, clock.now));
    await close();
  },
);

test.serial("servers that look for versions to verify at once never take the same one", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { one, two, clock, close } = await replicas();
  const spec = one.add();
  for (let i = 0; i < 3; i++) await one.upload(spec.name, openpgpMessage(1000));
  clock.advance(DAY_MS);
  const limits = { before: clock.now, damagedBefore: clock.now, until: new Date(clock.now.getTime() + DAY_MS) };
  const claims = await Promise.all(
    Array.from({ length: 12 }, async (_, i) =>
      (i % 2 === 0 ? one : two).deps.database.transaction(
        async (tx) => (await tx.versions.claimForVerification(tx.now, limits))?.id,
      ),
    ),
  );
  const taken = claims.filter((id) => id !== undefined);
  t.is(new Set(taken).size, taken.length);
  // One whose row another was taking found the next; in the end each was taken.
  const left = await (two.deps.database as SqlDatabase).query(
    sql`select count(*)::int as n from versions where verifying_until is null`,
  );
  t.is(taken.length + Number(left[0]!.n), 3);
  await close();
});

test.serial("a session revoked on one server ends on the other, and both take from one budget of logins", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const { one, two, close } = await replicas();
  const ann = user("ann", { passwordHash: "hash of ann-password" });
  const live = await Promise.all(
    [one, two].map(async (h) => await LiveServer.open([ann], [], { database: h.deps.database as SqlDatabase })),
  );
  const [a, b] = live;
  const { id, token } = await a!.session("ann");
  const whoAmI = async (at: LiveServer) => await reasonOf(at.clients.sessions.whoAmI({}, bearer(token)));
  t.is(await whoAmI(b!), "ok");
  await a!.clients.sessions.revokeSession({ sessionId: id }, bearer(token));
  t.is(await whoAmI(b!), "SESSION_INVALID");
  const limit = { count: 5, perMs: 60_000 };
  const takes = await Promise.all(
    Array.from({ length: 20 }, async (_, i) =>
      (i % 2 === 0 ? one : two).deps.database.transaction(
        async (tx) => "fullAt" in (await tx.budgets.take("holder", limit, tx.now)),
      ),
    ),
  );
  t.is(takes.filter(Boolean).length, 5);
  await Promise.all(live.map(async (server) => await server.close()));
  await close();
});
