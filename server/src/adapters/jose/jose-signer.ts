import { createSecretKey, type KeyObject, randomUUID } from "node:crypto";
import { exportJWK, generateKeyPair, importJWK, type JWK, jwtVerify, SignJWT } from "jose";
import type { Database } from "../../app/ports/database.ts";
import type { TokenSigner } from "../../app/ports/tokens.ts";
import { DomainError } from "../../domain/errors.ts";

const ISSUER = "strongroom";
const DAY_MS = 24 * 3_600_000;
/** A new key signs when the newest is older. */
const ROTATE_AFTER_MS = 90 * DAY_MS;

type Key = Awaited<ReturnType<typeof importJWK>> | KeyObject;

interface KeySet {
  readonly signing: { readonly id: string; readonly key: Key };
  readonly verifying: ReadonlyMap<string, Key>;
}

/** Keys are read again after this long, so that they rotate under a server that never restarts, in milliseconds. */
const REREAD_MS = 3_600_000;
/** A token with an unknown key makes them be read again, but not more often than this, in milliseconds. */
const REREAD_UNKNOWN_MS = 5000;

/**
 * Signs tokens as JSON Web Tokens (RFC 7519): with an Ed25519 key set kept in the database, the newest key signing and
 * all verifying, or with a shared secret (HS256) where one is given.
 */
export class JoseSigner implements TokenSigner {
  readonly #algorithm: "EdDSA" | "HS256";
  readonly #source: () => Promise<KeySet>;
  #keys: KeySet;
  #readAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;

  private constructor(algorithm: "EdDSA" | "HS256", keys: KeySet, source: () => Promise<KeySet>) {
    this.#algorithm = algorithm;
    this.#keys = keys;
    this.#source = source;
  }

  /** A signer with a shared secret of at least 32 bytes. */
  static withSecret(secret: Uint8Array): JoseSigner {
    if (secret.length < 32) throw new RangeError(`the token secret has ${secret.length} bytes; at least 32 are needed`);
    const key = createSecretKey(secret);
    const keys: KeySet = { signing: { id: "secret", key }, verifying: new Map([["secret", key]]) };
    return new JoseSigner("HS256", keys, async () => keys);
  }

  /**
   * A signer with the key set in the database, shared by all servers on it. A new key is made when there is none or the
   * newest is older than 90 days; keys whose last token has expired are forgotten.
   * @param sessionMs how long tokens are valid, in milliseconds.
   */
  static async fromDatabase(database: Database, sessionMs: number): Promise<JoseSigner> {
    const source = async () => await readKeySet(database, sessionMs);
    return new JoseSigner("EdDSA", await source(), source);
  }

  async sign(claims: { subject: string; issuedAt: Date; expiresAt: Date }): Promise<string> {
    await this.#reread(REREAD_MS);
    const { id, key } = this.#keys.signing;
    return await new SignJWT()
      .setProtectedHeader({ alg: this.#algorithm, kid: id, typ: "JWT" })
      .setIssuer(ISSUER)
      .setSubject(claims.subject)
      .setJti(randomUUID())
      .setIssuedAt(claims.issuedAt)
      .setExpirationTime(claims.expiresAt)
      .sign(key);
  }

  async verify(token: string, now: Date): Promise<boolean> {
    const options = { algorithms: [this.#algorithm], issuer: ISSUER, currentDate: now, requiredClaims: ["exp"] };
    try {
      await jwtVerify(token, async ({ kid = "" }: { kid?: string }) => await this.#verifyingKey(kid), options);
      return true;
    } catch (error) {
      // A database that does not answer says nothing of the token.
      if (error instanceof DomainError) throw error;
      return false;
    }
  }

  async #verifyingKey(id: string): Promise<Key> {
    // Another server may have made a key since.
    if (!this.#keys.verifying.has(id)) await this.#reread(REREAD_UNKNOWN_MS);
    const key = this.#keys.verifying.get(id);
    if (key === undefined) throw new Error("unknown key");
    return key;
  }

  /** Reads the keys again if that was longer ago; callers at the same time share one reading. */
  async #reread(olderThanMs: number): Promise<void> {
    if (performance.now() - this.#readAt < olderThanMs) return;
    this.#reading ??= this.#source()
      .then((keys) => {
        this.#keys = keys;
        this.#readAt = performance.now();
      })
      .finally(() => {
        this.#reading = undefined;
      });
    await this.#reading;
  }
}

async function readKeySet(database: Database, sessionMs: number): Promise<KeySet> {
  const { privateKey } = await generateKeyPair("EdDSA", { extractable: true });
  const fresh = { id: randomUUID(), jwk: (await exportJWK(privateKey)) as Record<string, unknown> };
  const rows = await database.transaction(async (tx) => {
    await tx.sessions.lockSigningKeys();
    // A key dated ahead would be the newest, and no other would be made, until that time comes.
    await tx.sessions.healSigningKeys(tx.now);
    const keys = await tx.sessions.signingKeys();
    const newest = keys[0];
    if (newest === undefined || tx.now.getTime() - newest.createdAt.getTime() > ROTATE_AFTER_MS) {
      const row = { ...fresh, createdAt: tx.now };
      await tx.sessions.insertSigningKey(row);
      keys.unshift(row);
    }
    // A key is needed until the last token signed with it ends: its successor's birth, the time until every server has
    // seen that, and the life of a session; a day covers the second.
    const needed = keys.filter(
      (_, i) => i === 0 || keys[i - 1]!.createdAt.getTime() + sessionMs + DAY_MS > tx.now.getTime(),
    );
    for (const key of keys) if (!needed.includes(key)) await tx.sessions.deleteSigningKey(key.id);
    return needed;
  });
  const verifying = new Map<string, Key>();
  for (const { id, jwk } of rows) {
    const { d: _private, ...publicPart } = jwk as JWK;
    verifying.set(id, await importJWK(publicPart, "EdDSA"));
  }
  const newest = rows[0]!;
  return { signing: { id: newest.id, key: await importJWK(newest.jwk as JWK, "EdDSA") }, verifying };
}
