import { formatSize } from "@strongroom/protocol/sizes";
import type { ClockState } from "../../domain/clock.ts";
import { READINESS_PROBES, readinessProbeKey, readinessProbeTime } from "../../domain/object-keys.ts";
import type { BlobStore } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { Log } from "../settings.ts";

/** A probe object older than this was left by a server that died, in milliseconds. */
const STRAY_MS = 3_600_000;

/** One condition of taking calls. */
export interface ReadinessCheck {
  readonly name: "database" | "storage" | "configuration" | "clock";
  readonly ok: boolean;
  /** Whether the server takes calls without it as well; then it is shown only. */
  readonly isRemark?: boolean;
  /** For a person who may know: what was found. Never a secret. */
  readonly message: string;
}

/**
 * A probe has this many bytes: on a full disk a few bytes still find room, in a block that is there.
 */
export const PROBE_BYTES = 1024 * 1024;

/** A disk with less than this is full soon, in bytes: two segments, or two files of PostgreSQL's log. */
export const LEAST_FREE_BYTES = 32n * 1024n * 1024n;

/** A disk of this machine that something lies on. */
export interface WatchedDisk {
  /** Which condition it belongs to. */
  readonly check: "database" | "storage";
  /** Bytes that can still be written. */
  readonly freeBytes: () => Promise<bigint>;
}

/** What readiness looks at. */
export interface ReadinessDeps {
  readonly database: Pick<Database, "ping">;
  readonly store: Pick<BlobStore, "put" | "get" | "delete" | "list" | "capabilities">;
  readonly config: ConfigSource;
  /** Disks that must have room; none where database and store are elsewhere. */
  readonly disks?: readonly WatchedDisk[] | undefined;
  readonly log: Log;
  /** What the last look at the database's clock found. */
  readonly clock: () => ClockState;
  /** Makes a unique id. */
  readonly newId: () => string;
}

/** Times of {@link Readiness}, in milliseconds. */
export interface ReadinessTimes {
  /** A condition that is not found out within this time does not hold. */
  readonly limitMs: number;
  /** An answer is given again for this long, so that asking is no load. */
  readonly freshMs: number;
}

const TIMES: ReadinessTimes = { limitMs: 10_000, freshMs: 5000 };

/**
 * Whether this server can do its work: the database answers, the store takes, gives back and deletes a small object,
 * and the configuration that its source holds is in force. What it thinks of the clock is shown beside. However often
 * it is asked, one look is under way at a time, and at most one probe object is in the store.
 */
export class Readiness {
  readonly #deps: ReadinessDeps;
  readonly #times: ReadinessTimes;
  #looking: Promise<readonly ReadinessCheck[]> | undefined;
  #last: { readonly at: number; readonly checks: readonly ReadinessCheck[] } | undefined;
  /** The probe under way; one that hangs is waited for, and no second one begins. */
  #probe: Promise<void> | undefined;
  #tidied = false;
  #wasReady = true;

  constructor(deps: ReadinessDeps, times: ReadinessTimes = TIMES) {
    this.#deps = deps;
    this.#times = times;
  }

  /** Every condition. Never throws. */
  async check(): Promise<readonly ReadinessCheck[]> {
    if (this.#last !== undefined && performance.now() - this.#last.at < this.#times.freshMs) return this.#last.checks;
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return await this.#looking;
  }

  /** Waits for a probe under way, but not for one that hangs, so that stopping leaves nothing in the store. */
  async idle(): Promise<void> {
    if (this.#probe !== undefined) await within(2000, this.#probe).catch(() => {});
  }

  async #look(): Promise<readonly ReadinessCheck[]> {
    const { database, config, store } = this.#deps;
    const limitMs = this.#times.limitMs;
    const checks = await Promise.all([
      outcome("database", "the database answers", async () => {
        await within(limitMs, database.ping());
        await within(limitMs, this.#requireRoom("database"));
      }),
      outcome("storage", `the ${store.capabilities.name} store takes, gives and deletes`, async () => {
        this.#probe ??= this.#probeStore().finally(() => {
          this.#probe = undefined;
        });
        await within(limitMs, this.#probe);
        await within(limitMs, this.#requireRoom("storage"));
      }),
      outcome("configuration", "what the configuration directory holds is in force", async () => {
        const problem = config.status?.().problem;
        if (problem !== undefined) throw new Error(`a change is refused, the last good state is in force: ${problem}`);
      }),
    ]);
    const { status, message } = this.#deps.clock();
    // Without a right clock backups are taken all the same, so nobody has to go to another server.
    checks.push({ name: "clock", ok: status === "right", message, isRemark: true });
    this.#last = { at: performance.now(), checks };
    this.#tell(checks);
    return checks;
  }

  async #requireRoom(check: WatchedDisk["check"]): Promise<void> {
    for (const disk of this.#deps.disks ?? []) {
      if (disk.check !== check) continue;
      const free = await disk.freeBytes();
      if (free < LEAST_FREE_BYTES)
        throw new Error(
          `the disk of the ${check} is full: expected at least ${formatSize(LEAST_FREE_BYTES)} free, got ` +
            `${formatSize(free)}; free space on it or enlarge it`,
        );
    }
  }

  async #probeStore(): Promise<void> {
    const { store, newId } = this.#deps;
    const id = newId();
    const key = readinessProbeKey(Date.now(), id);
    const bytes = Buffer.alloc(PROBE_BYTES, `${id}\n`);
    try {
      await store.put(key, bytes);
      const found = await store.get(key, bytes.length);
      if (found === undefined) throw new Error("an object that was just stored is not there");
      if (Buffer.compare(found, bytes) !== 0) throw new Error("an object that was just stored has other bytes");
    } catch (error) {
      // A store that failed may have taken it all the same.
      await store.delete(key).catch(() => {});
      throw error;
    }
    await store.delete(key);
    if (!this.#tidied) await this.#tidy();
    this.#tidied = true;
  }

  /** Deletes what servers that died in the middle of a probe have left; other replicas' probes are younger. */
  async #tidy(): Promise<void> {
    for await (const { key } of this.#deps.store.list(READINESS_PROBES)) {
      if (Date.now() - readinessProbeTime(key) > STRAY_MS) await this.#deps.store.delete(key);
    }
  }

  /** Logs every change of readiness with the reasons, since probes without the secret do not get them. */
  #tell(checks: readonly ReadinessCheck[]): void {
    const failed = checks.filter((check) => !check.ok && check.isRemark !== true);
    const isReady = failed.length === 0;
    if (isReady !== this.#wasReady) {
      const fields = Object.fromEntries(failed.map(({ name, message }) => [name, message]));
      if (isReady) this.#deps.log.info({}, "readiness: ready again");
      else this.#deps.log.warn(fields, "readiness: not ready");
    }
    this.#wasReady = isReady;
  }
}

async function outcome(name: ReadinessCheck["name"], ok: string, look: () => Promise<void>): Promise<ReadinessCheck> {
  try {
    await look();
    return { name, ok: true, message: ok };
  } catch (error) {
    return { name, ok: false, message: error instanceof Error ? error.message : String(error) };
  }
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
