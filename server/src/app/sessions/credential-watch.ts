import type { Configuration } from "../../domain/configuration.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, SessionCredential } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { type CredentialName, credentialFingerprint, loginName } from "./credential.ts";

/** What {@link CredentialWatch} needs. */
export interface CredentialWatchDeps {
  readonly config: ConfigSource;
  readonly database: Database;
  readonly log: Log;
  /** SHA-256 in hexadecimal. */
  readonly sha256: (text: string) => string;
  /** Milliseconds that only go forward, whatever happens to the time of day. */
  readonly monotonic: () => number;
}

/**
 * How long a server must have held another password, or none, before the sessions of the old one end everywhere, in
 * milliseconds: a directory that is late or half-updated for moments must not end what is valid elsewhere.
 */
export const HOLD_MS = 60_000;
/** How often the configuration is looked at, in milliseconds. */
const LOOK_MS = 5_000;

/** Since when this process has held what it holds of a credential. */
interface Since {
  readonly monotonic: number;
  /** By the database's clock, as the times of sessions are. */
  readonly database: Date;
}

/**
 * Ends sessions for good whose password is not that of the configuration any more. Requests only compare and refuse;
 * without this, a session would be valid again when the old state came back.
 *
 * A session ends when this process has held the other state for {@link HOLD_MS} without a configuration problem, and
 * the session is older than that state here: a younger one was issued by a server that knew more, or will be refused
 * there.
 */
export class CredentialWatch {
  readonly #deps: CredentialWatchDeps;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #looking: Promise<void> = Promise.resolve();
  #seen: Configuration | undefined;
  #fingerprints: ReadonlyMap<string, string | undefined> = new Map();
  /** Of credentials that changed since the first look. */
  readonly #changed = new Map<string, Since>();
  #first: Since | undefined;
  /** When there was a problem last, or the first look. */
  #problemAt = 0;
  #refusals = 0;
  /** Whether something is to be ended once it was held long enough. */
  #isPending = true;

  constructor(deps: CredentialWatchDeps) {
    this.#deps = deps;
  }

  /** Looks now and from then on. */
  start(): void {
    void this.look().finally(() => {
      if (this.#stopped) return;
      this.#timer = setTimeout(() => this.start(), LOOK_MS);
      this.#timer.unref();
    });
  }

  /** No further looks; waits for the one under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  /** Looks once, and ends what was held long enough. Never throws; what fails is tried again at the next look. */
  async look(): Promise<void> {
    this.#looking = this.#looking
      .then(async () => await this.#look())
      .catch((error: unknown) =>
        this.#deps.log.warn({ err: error }, "sessions of former passwords could not be ended; tried again soon"),
      );
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { config, database, monotonic } = this.#deps;
    const { problem, refusals = 0 } = config.status?.() ?? {};
    if (problem !== undefined || refusals !== this.#refusals) this.#problemAt = monotonic();
    this.#refusals = refusals;
    const configuration = config.current();
    if (configuration !== this.#seen || this.#first === undefined) await this.#take(configuration);
    if (!this.#isPending || monotonic() - this.#problemAt < HOLD_MS) return;
    const credentials = await database.read(async (tx) => await tx.sessions.validCredentials(tx.now));
    for (const credential of credentials) await this.#endFormer(credential);
    this.#isPending = [...this.#changed.values(), this.#first!].some((since) => !this.#isHeld(since));
  }

  /** Notes since when each credential is what it is. */
  async #take(configuration: Configuration): Promise<void> {
    const { database, monotonic } = this.#deps;
    // Both times before the state is noted: a failure of the database leaves all to the next look.
    const since = { monotonic: monotonic(), database: await database.read(async (tx) => tx.now) };
    const fingerprints = this.#fingerprintsOf(configuration);
    if (this.#first === undefined) {
      this.#first = since;
      this.#problemAt = since.monotonic;
    } else {
      for (const name of new Set([...fingerprints.keys(), ...this.#fingerprints.keys()])) {
        if (fingerprints.get(name) === this.#fingerprints.get(name)) continue;
        this.#changed.set(name, since);
        this.#isPending = true;
      }
    }
    this.#fingerprints = fingerprints;
    this.#seen = configuration;
  }

  #fingerprintsOf({ users }: Configuration): Map<string, string | undefined> {
    const fingerprints = new Map<string, string | undefined>();
    const add = (name: CredentialName, hash: string | undefined) =>
      fingerprints.set(loginName(name), credentialFingerprint(this.#deps.sha256, name, hash));
    for (const user of users.values()) {
      add({ userName: user.name, accessKey: "" }, user.passwordHash);
      for (const key of user.accessKeys) add({ userName: user.name, accessKey: key.name }, key.passwordHash);
    }
    return fingerprints;
  }

  async #endFormer(credential: SessionCredential): Promise<void> {
    const name = loginName(credential);
    const inForce = this.#fingerprints.get(name);
    const { fingerprint } = credential;
    // One from before there were fingerprints fits any password, as long as there is one.
    if (inForce !== undefined && (fingerprint === null || fingerprint === inForce)) return;
    const since = this.#changed.get(name) ?? this.#first!;
    if (!this.#isHeld(since)) return;
    const { userName, accessKey } = credential;
    const count = await this.#deps.database.transaction(async (tx) => {
      const of = { userName, accessKey, fingerprint, createdBefore: since.database };
      const ended = await tx.sessions.revoke(of, tx.now);
      if (ended > 0)
        await tx.audit({
          kind: "sessions.revoked",
          actor: "server",
          collectionName: "",
          details: { user: userName, access_key: accessKey, sessions: `${ended}` },
        });
      return ended;
    });
    if (count > 0)
      this.#deps.log.info(
        { user: userName, access_key: accessKey, sessions: count },
        "sessions are ended: their user or access key is gone, or has another password",
      );
  }

  #isHeld({ monotonic }: Since): boolean {
    return this.#deps.monotonic() - monotonic >= HOLD_MS;
  }
}
