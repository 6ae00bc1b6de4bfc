/** Which keys open which versions, and which versions would be lost with a key. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { recover } from "../src/app/upkeep/recover.ts";
import { listKeys } from "../src/app/versions/list-keys.ts";
import { keyInventory, recipientName } from "../src/domain/key-inventory.ts";
import { emptyTables, type Harness, harnessTest, MIB, principal, refused, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const A = "aaaaaaaaaaaaaaaa";
const B = "bbbbbbbbbbbbbbbb";

/** A message of this size to some keys: session-key packets before those of the test kit. */
function messageTo(keyIds: readonly string[], size = 1000): Uint8Array {
  const packet = (keyId: string) => [0xc1, 14, 3, ...Buffer.from(keyId, "hex"), 1, 0, 9, 1, 0xff];
  const rest = openpgpMessage(size).subarray(16);
  return Uint8Array.from([...keyIds.flatMap(packet), ...rest]);
}

const keysOf = (h: Harness, collection: string, lost: readonly string[] = []) =>
  listKeys(h.deps, h.admin, { collection, lost });

test("every version keeps what it is encrypted to, in one segment and in several, in row and manifest", async (t) => {
  const h = await t.context.h.reset();
  const { name } = h.add({ maxBackupsCount: 5 });
  await h.upload(name, messageTo([A]));
  await h.upload(name, messageTo([A, B], 3 * MIB));
  await h.upload(name, messageTo([B, B, "0".repeat(16)]));
  const check = async () => {
    const { keys, lost, uncertain, unknown } = await keysOf(h, name, [`openpgp:${A}`]);
    t.deepEqual(keys, [
      { recipient: `openpgp:${A}`, versions: 2, alone: 1, newest: 2n },
      { recipient: `openpgp:${B}`, versions: 2, alone: 0, newest: 3n },
      { recipient: "openpgp:hidden", versions: 1, alone: 0, newest: 3n },
    ]);
    t.deepEqual([lost, uncertain, unknown], [[1n], [], []]);
    t.deepEqual((await keysOf(h, name, [`openpgp:${B}`])).uncertain, [3n], "whose the hidden one is, nobody knows");
    t.deepEqual((await keysOf(h, name, [`openpgp:${A}`, `openpgp:${B}`])).lost, [2n, 1n]);
  };
  await check();
  await emptyTables(h.deps.database as SqlDatabase);
  await recover({ database: h.deps.database, store: h.deps.store });
  await check();
});

test("versions from before are unknown, and no version is lost that nobody knows of", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ name: "from-before" });
  const { version } = await h.upload(name, messageTo([A]));
  const database = h.deps.database as SqlDatabase;
  await database.query(sql`update versions set recipients = null, revision = 2 where id = ${version.id}`);
  t.deepEqual(await keysOf(h, name, [`openpgp:${A}`]), { keys: [], unknown: [1n], lost: [], uncertain: [] });
  const [bob, eve] = [principal(user("bob")), principal(user("eve"))];
  h.collections.set(name, {
    ...h.collections.get(name)!,
    accessControl: [{ userName: "bob", roles: ["backupUploader"] }],
  });
  t.deepEqual((await listKeys(h.deps, bob, { collection: name, lost: [] })).unknown, [1n]);
  await refused(t, "COLLECTION_NOT_FOUND", listKeys(h.deps, eve, { collection: name, lost: [] }));
});

test("a dump to a key that is not pinned is refused, and keeps no version", async (t) => {
  const { h } = t.context;
  const { name } = h.add({ name: "pinned", recipientKeyIds: [A] });
  await h.upload(name, messageTo([A]));
  await refused(t, "CIPHERTEXT_REFUSED", h.upload(name, messageTo([A, B])));
  t.deepEqual(
    (await keysOf(h, name)).keys.map(({ recipient }) => recipient),
    [`openpgp:${A}`],
  );
});

test("lost keys: passphrases and named keys are others, keys that are not named may be the lost one", (t) => {
  const of = (recipients: Record<string, number>) => keyInventory([{ number: 1n, recipients }], ["openpgp:1"]);
  t.deepEqual(of({ "openpgp:1": 1 }).lost, [1n]);
  t.deepEqual(of({ "openpgp:2": 1 }).lost, []);
  for (const other of ["openpgp:2", "openpgp:passphrase", "age:ssh-rsa:abcdef", "age:scrypt"])
    t.deepEqual([of({ "openpgp:1": 1, [other]: 1 }).lost, of({ "openpgp:1": 1, [other]: 1 }).uncertain], [[], []]);
  for (const other of ["openpgp:hidden", "age:X25519", "other"])
    t.deepEqual(of({ "openpgp:1": 1, [other]: 1 }).uncertain, [1n]);
});

test("key ids and fingerprints are names too", (t) => {
  t.is(recipientName("AAAAAAAAAAAAAAAA"), `openpgp:${A}`);
  t.is(recipientName("0xAAAAAAAAAAAAAAAA"), `openpgp:${A}`);
  t.is(recipientName(`0000 1111 2222 3333 4444  5555 ${"AAAA ".repeat(4)}`), `openpgp:${A}`);
  t.is(recipientName(`${A}${"0".repeat(48)}`), `openpgp:${A}`, "version 6 begins with it");
  t.is(recipientName("age:ssh-ed25519:d6F3Wg"), "age:ssh-ed25519:d6F3Wg");
  for (const none of ["", "aaaa", "alice@example.org", "age:", "x:y"]) t.is(recipientName(none), undefined, none);
});
