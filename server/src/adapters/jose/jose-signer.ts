import { createSecretKey, randomUUID } from "node:crypto";
import { MAX_TOKEN_LENGTH } from "@strongroom/protocol/limits";
import { decodeProtectedHeader, jwtVerify, SignJWT } from "jose";
import type { Database } from "../../app/ports/database.ts";
import type { OldTokenClaims, TokenSigner } from "../../app/ports/tokens.ts";
import { DomainError } from "../../domain/errors.ts";
import { readKeySet, rotateKeySet } from "./key-set.ts";
import type { KeySet, VerifyingKey } from "./keys.ts";
import { verifyOldToken } from "./old-tokens.ts";

const ISSUER = "strongroom";
/** The key id of shared secrets; those of a key set are UUIDs. */
const SECRET_ID = "secret";
/** A secret is not shorter than what HS256 makes of it (RFC 7518, 3.2). */
const LEAST_SECRET_BYTES = 32;

/** Keys are read again after this long, so that they rotate under a server that never restarts, in milliseconds. */
const REREAD_MS = 3_600_000;
/** An id that is not among the keys is not looked for again within this time, in milliseconds. */
const REREAD_MISSING_MS = 5000;
/** Ids that were not found are remembered up to this number. */
const MAX_MISSING = 100;

/** What tokens are signed with and verified by. */
export interface SignerOptions {
  /** A shared secret of at least 32 bytes, beside the key set or instead of it. */
  readonly secret?: Uint8Array | undefined;
  /** Secrets whose tokens stay valid beside those of {@link secret}, which signs. */
  readonly otherSecrets?: readonly Uint8Array[] | undefined;
  /**
   * `only` (the default) signs and verifies with the secret alone; with `sign` the key set verifies as well, and with
   * `verify` it signs, while tokens of the secret stay valid.
   */
  readonly secretUse?: "only" | "sign" | "verify" | undefined;
  /** The secret of Backup Repository, whose tokens are then verified; never shorter than a byte. */
  readonly oldSecret?: Uint8Array | undefined;
}

/**
 * Signs tokens as JSON Web Tokens (RFC 7519): with an Ed25519 key set kept in the database, the newest key signing and
 * all verifying, with a shared secret (HS256), or with both. A key is for one algorithm only, and the key id decides
 * which key it is.
 */
export class JoseSigner implements TokenSigner {
  readonly #source: () => Promise<KeySet>;
  readonly #rotate: (() => Promise<string>) | undefined;
  readonly #oldSecret: Uint8Array | undefined;
  #keys: KeySet;
  #readAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;
  /** Ids that were not found, and when. */
  readonly #missing = new Map<string, number>();

  private constructor(parts: {
    keys: KeySet;
    source: () => Promise<KeySet>;
    rotate?: (() => Promise<string>) | undefined;
    oldSecret?: Uint8Array | undefined;
  }) {
    this.#keys = parts.keys;
    this.#source = parts.source;
    this.#rotate = parts.rotate;
    this.#oldSecret = parts.oldSecret;
  }

  /** A signer with a shared secret of at least 32 bytes, and nothing else. @throws RangeError for a shorter one */
  static withSecret(
    secret: Uint8Array,
    { oldSecret, otherSecrets = [] }: Pick<SignerOptions, "oldSecret" | "otherSecrets"> = {},
  ): JoseSigner {
    const keys = withSecrets(undefined, [secret, ...otherSecrets], true);
    return new JoseSigner({ keys, source: async () => keys, oldSecret });
  }

  /**
   * A signer with the key set in the database, shared by all servers on it. A new key is made when there is none or the
   * newest is older than 90 days; a key is forgotten when no valid session was signed with it.
   * @throws RangeError for a secret that is too short
   */
  static async fromDatabase(database: Database, options: SignerOptions = {}): Promise<JoseSigner> {
    const { secret, otherSecrets = [], secretUse = "only", oldSecret } = options;
    if (secret !== undefined && secretUse === "only") return JoseSigner.withSecret(secret, { oldSecret, otherSecrets });
    const source = async () => {
      const keys = await readKeySet(database);
      return secret === undefined ? keys : withSecrets(keys, [secret, ...otherSecrets], secretUse === "sign");
    };
    const rotate = secret !== undefined && secretUse === "sign" ? undefined : async () => await rotateKeySet(database);
    return new JoseSigner({ keys: await source(), source, rotate, oldSecret });
  }

  async sign(claims: { subject: string; issuedAt: Date; expiresAt: Date }): Promise<string> {
    await this.#reread(REREAD_MS);
    const { id, algorithm, key } = this.#keys.signing;
    return await new SignJWT()
      .setProtectedHeader({ alg: algorithm, kid: id, typ: "JWT" })
      .setIssuer(ISSUER)
      .setSubject(claims.subject)
      .setJti(randomUUID())
      .setIssuedAt(claims.issuedAt)
      .setExpirationTime(claims.expiresAt)
      .sign(key);
  }

  async verify(token: string, now: Date): Promise<boolean> {
    if (token.length > MAX_TOKEN_LENGTH) return false;
    try {
      const { kid } = decodeProtectedHeader(token);
      for (const key of typeof kid === "string" ? await this.#verifyingKeys(kid) : [])
        if (await isSignedBy(key, token, now)) return true;
      return false;
    } catch (error) {
      // A database that does not answer says nothing of the token.
      if (error instanceof DomainError) throw error;
      return false;
    }
  }

  async verifyOld(token: string, now: Date): Promise<OldTokenClaims | undefined> {
    return this.#oldSecret === undefined ? undefined : await verifyOldToken(this.#oldSecret, token, now);
  }

  async rotate(): Promise<string> {
    if (this.#rotate === undefined)
      throw new DomainError(
        "KEY_ROTATION_REFUSED",
        "this server signs with a shared secret, which it cannot change; put another secret into its file and restart",
        { metadata: { keys: "0" } },
      );
    const id = await this.#rotate();
    await this.#reread(0);
    return id;
  }

  async #verifyingKeys(id: string): Promise<readonly VerifyingKey[]> {
    const known = this.#keys.verifying.get(id);
    if (known !== undefined) return known;
    const missedAt = this.#missing.get(id);
    if (missedAt !== undefined && performance.now() - missedAt < REREAD_MISSING_MS) return [];
    // Another server may have made it since; a reading that has begun already may not see it.
    await this.#reading;
    if (!this.#keys.verifying.has(id)) await this.#reread(0);
    const keys = this.#keys.verifying.get(id);
    if (keys !== undefined) return keys;
    if (this.#missing.size >= MAX_MISSING) this.#missing.clear();
    this.#missing.set(id, performance.now());
    return [];
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

/** Whether a token is signed by this key, and in time. */
async function isSignedBy({ key, algorithm }: VerifyingKey, token: string, now: Date): Promise<boolean> {
  const expected = { algorithms: [algorithm], issuer: ISSUER, currentDate: now, requiredClaims: ["exp"] };
  return await jwtVerify(token, key, expected).then(
    () => true,
    () => false,
  );
}

/** A key set with secrets beside its keys, or of the secrets alone; the first of them signs, if any does. */
function withSecrets(keys: KeySet, secrets: readonly Uint8Array[], sign: boolean): KeySet;
function withSecrets(keys: undefined, secrets: readonly Uint8Array[], sign: true): KeySet;
function withSecrets(keys: KeySet | undefined, secrets: readonly Uint8Array[], sign: boolean): KeySet {
  const own = secrets.map((secret) => {
    if (secret.length < LEAST_SECRET_BYTES)
      throw new RangeError(`a token secret has ${secret.length} bytes; at least ${LEAST_SECRET_BYTES} are needed`);
    return { algorithm: "HS256", key: createSecretKey(secret) } as const;
  });
  return {
    signing: sign || keys === undefined ? { id: SECRET_ID, ...own[0]! } : keys.signing,
    verifying: new Map([...(keys?.verifying ?? []), [SECRET_ID, own]]),
  };
}
