import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import type { Database } from "../ports/database.ts";
import type { ReplicaRow } from "../ports/upkeep-records.ts";
import type { Log } from "../settings.ts";

/** A server says this often that it is there, in milliseconds. */
export const SIGN_MS = 30_000;

/** One that was not seen for this long is forgotten, in milliseconds. */
export const FORGOTTEN_MS = 24 * 3_600_000;

/** Says that this server is there, so that an administrator sees every replica. */
export class ReplicaSign {
  readonly #database: Database;
  readonly #log: Log;
  readonly #self: Pick<ReplicaRow, "id" | "host" | "version">;
  #startedAt: Date | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor({ database, log }: { database: Database; log: Log }, self: Pick<ReplicaRow, "id" | "host" | "version">) {
    this.#database = database;
    this.#log = log;
    this.#self = self;
  }

  get id(): string {
    return this.#self.id;
  }

  get version(): string {
    return this.#self.version;
  }

  /** Says it now and from then on. */
  start(): void {
    const sign = () => {
      this.#running = this.renew().catch((error: unknown) =>
        this.#log.warn({ err: error }, "this server could not say in the database that it is there"),
      );
    };
    this.#timer = setInterval(sign, SIGN_MS);
    this.#timer.unref();
    sign();
  }

  /** Says it once, and forgets those that were silent for long. */
  async renew(): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const { now, records } = tx;
      this.#startedAt ??= now;
      await records.renewReplica({ ...this.#self, startedAt: this.#startedAt, seenAt: now });
      const at = (ms: number) => new Date(now.getTime() + ms);
      await records.forgetReplicas(at(-FORGOTTEN_MS), at(CLOCK_SLACK_MS));
    });
  }

  /** This server ends, and is not missed. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
    if (this.#startedAt !== undefined)
      await this.#database.transaction(async (tx) => await tx.records.forgetReplica(this.id)).catch(() => {});
  }
}
