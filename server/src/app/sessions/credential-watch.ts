import type { Configuration } from "../../domain/configuration.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, SessionCredential } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { loginName } from "./credential.ts";
import { changedNames, endFormer, type Fingerprints, fingerprintsOf, isFormer } from "./former-sessions.ts";

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
  /** By the database's clock, as the times of sessions are; undefined until that was asked. */
  database: Date | undefined;
}

/**
 * Ends sessions for good whose password is not that of the configuration any more. Requests only compare and refuse;
 * without this, a session would be valid again when the old state came back.
 *
 * A session ends when this process has held the other state for {@link HOLD_MS} without a configuration problem, and
 * the session is older than that state here: a younger one was issued by a server that knew more, or will be refused
 * there. Every state counts, also one that was in force here between two looks only: sessions were issued in it.
 */
export class CredentialWatch {
  readonly #deps: CredentialWatchDeps;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #looking: Promise<void> = Promise.resolve();
  #seen: Configuration;
  #fingerprints: Fingerprints;
  /** Of credentials that changed since the start. */
  readonly #changed = new Map<string, Since>();
  #first: Since | undefined;
  /** When there was a problem last, or the first look. */
  #problemAt = 0;
  #refusals = 0;
  /** Whether something is to be ended once it was held long enough. */
  #isPending = true;

  constructor(deps: CredentialWatchDeps) {
    this.#deps = deps;
    this.#seen = deps.config.current();
    this.#fingerprints = fingerprintsOf(deps.sha256, this.#seen);
    deps.config.onChange?.((configuration) => this.#take(configuration));
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
    this.#take(config.current());
    await this.#dateChanges();
    if (!this.#isPending || monotonic() - this.#problemAt < HOLD_MS) return;
    const credentials = await database.read(async (tx) => await tx.sessions.validCredentials(tx.now));
    for (const credential of credentials) await this.#endFormer(credential);
    this.#isPending = [...this.#changed.values(), this.#first!].some((since) => !this.#isHeld(since));
  }

  /** Notes since when each credential is what it is. */
  #take(configuration: Configuration): void {
    if (configuration === this.#seen) return;
    const fingerprints = fingerprintsOf(this.#deps.sha256, configuration);
    const monotonic = this.#deps.monotonic();
    for (const name of changedNames(this.#fingerprints, fingerprints)) {
      this.#changed.set(name, { monotonic, database: undefined });
      this.#isPending = true;
    }
    this.#fingerprints = fingerprints;
    this.#seen = configuration;
  }

  /** Asks the database what time it was there at each change. A failure leaves that to the next look. */
  async #dateChanges(): Promise<void> {
    const { database, monotonic } = this.#deps;
    const undated = [...this.#changed.values()].filter((since) => since.database === undefined);
    if (this.#first !== undefined && undated.length === 0) return;
    // Before the question: what was issued in the moments until the answer is not taken for younger.
    const asked = monotonic();
    const now = await database.read(async (tx) => tx.now);
    if (this.#first === undefined) {
      this.#first = { monotonic: asked, database: now };
      this.#problemAt = asked;
    }
    for (const since of undated) since.database = new Date(now.getTime() - (asked - since.monotonic));
  }

  async #endFormer(credential: SessionCredential): Promise<void> {
    if (!isFormer(this.#fingerprints, credential)) return;
    const since = this.#changed.get(loginName(credential)) ?? this.#first!;
    const { database: createdBefore } = since;
    if (createdBefore === undefined || !this.#isHeld(since)) return;
    const count = await this.#deps.database.transaction(
      async (tx) => await endFormer(tx, credential, { actor: "server", createdBefore }),
    );
    if (count > 0)
      this.#deps.log.info(
        { user: credential.userName, access_key: credential.accessKey, sessions: count },
        "sessions are ended: their user or access key is gone, or has another password",
      );
  }

  #isHeld({ monotonic }: Since): boolean {
    return this.#deps.monotonic() - monotonic >= HOLD_MS;
  }
}
