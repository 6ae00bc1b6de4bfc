import { randomUUID } from "node:crypto";
import { exportJWK, generateKeyPair, importJWK, type JWK } from "jose";
import type { Database, SigningKeyRow, Transaction } from "../../app/ports/database.ts";
import { DomainError } from "../../domain/errors.ts";
import type { KeySet, VerifyingKey } from "./keys.ts";

const DAY_MS = 24 * 3_600_000;
/** A new key signs when the newest is older. */
const ROTATE_AFTER_MS = 90 * DAY_MS;
/**
 * A server may sign with a key for so long after its successor was made: until it reads the keys again (an hour), and
 * what its clock may be off.
 */
const SUCCESSION_MS = DAY_MS;
/** Keys that are kept at most; each is one more that verifies. */
export const MAX_SIGNING_KEYS = 50;

/** The key set of a database: reads it, makes what is missing, and forgets what no valid session needs. */
export async function readKeySet(database: Database): Promise<KeySet> {
  const fresh = await newKey();
  const rows = await database.transaction(async (tx) => {
    const keys = await lockedKeys(tx);
    const newest = keys[0];
    if (newest === undefined || tx.now.getTime() - newest.createdAt.getTime() > ROTATE_AFTER_MS)
      keys.unshift(await insertKey(tx, fresh));
    return await withoutUnneeded(tx, keys);
  });
  return await keySetOf(rows);
}

/**
 * Makes a key that signs from now on; the others go on to verify.
 * @returns the id of the new key.
 * @throws DomainError KEY_ROTATION_REFUSED when there are as many as there may be
 */
export async function rotateKeySet(database: Database): Promise<string> {
  const fresh = await newKey();
  return await database.transaction(async (tx) => {
    const keys = await withoutUnneeded(tx, await lockedKeys(tx));
    if (keys.length >= MAX_SIGNING_KEYS)
      throw new DomainError(
        "KEY_ROTATION_REFUSED",
        `there are ${keys.length} keys, as many as there may be, since valid sessions were signed with them or they ` +
          "are younger than a day; end sessions, or wait until they have ended",
        { metadata: { keys: `${keys.length}` } },
      );
    return (await insertKey(tx, fresh)).id;
  });
}

type FreshKey = Pick<SigningKeyRow, "id" | "jwk">;

async function newKey(): Promise<FreshKey> {
  const { privateKey } = await generateKeyPair("EdDSA", { extractable: true });
  return { id: randomUUID(), jwk: (await exportJWK(privateKey)) as Record<string, unknown> };
}

/** Every key, newest first; nobody else makes or deletes one until the transaction ends. */
async function lockedKeys(tx: Transaction): Promise<SigningKeyRow[]> {
  await tx.sessions.lockSigningKeys();
  // A key dated ahead would be the newest, and no other would be made, until that time comes.
  await tx.sessions.healSigningKeys(tx.now);
  return await tx.sessions.signingKeys();
}

async function insertKey(tx: Transaction, fresh: FreshKey): Promise<SigningKeyRow> {
  const row = { ...fresh, createdAt: tx.now };
  await tx.sessions.insertSigningKey(row);
  return row;
}

/** Forgets every key but the newest that nobody signs with any more and that no valid session was signed with. */
async function withoutUnneeded(tx: Transaction, keys: readonly SigningKeyRow[]): Promise<SigningKeyRow[]> {
  const needed: SigningKeyRow[] = [];
  for (const [i, key] of keys.entries()) {
    const successor = keys[i - 1];
    const signedUntil = successor && new Date(successor.createdAt.getTime() + SUCCESSION_MS);
    // Its first session was dated a moment before the key was made for it.
    const signedFrom = new Date(key.createdAt.getTime() - SUCCESSION_MS);
    if (
      signedUntil === undefined ||
      signedUntil > tx.now ||
      (await tx.sessions.hasValidBetween(signedFrom, signedUntil, tx.now))
    )
      needed.push(key);
    else await tx.sessions.deleteSigningKey(key.id);
  }
  return needed;
}

async function keySetOf(rows: readonly SigningKeyRow[]): Promise<KeySet> {
  const verifying = new Map<string, readonly VerifyingKey[]>();
  for (const { id, jwk } of rows) {
    const { d: _private, ...publicPart } = jwk as JWK;
    verifying.set(id, [{ algorithm: "EdDSA", key: await importJWK(publicPart, "EdDSA") }]);
  }
  const newest = rows[0]!;
  const key = await importJWK(newest.jwk as JWK, "EdDSA");
  return { signing: { id: newest.id, algorithm: "EdDSA", key }, verifying };
}
