import { type NotifierSpec, pauseAfter } from "../../domain/notifications.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { DeliveryRow, NotificationSender } from "../ports/notifications.ts";
import type { Log } from "../settings.ts";

/** What deliveries need. */
export interface DelivererDeps {
  readonly database: Database;
  readonly config: ConfigSource;
  readonly log: Log;
  readonly sender: NotificationSender;
  readonly newId: () => string;
  /** A number from 0 to 1. */
  readonly random: () => number;
  /** How often a claim is renewed while its notification is sent, in milliseconds; for tests. */
  readonly renewMs?: number | undefined;
  /** Counts; absent where nobody asks. */
  readonly onOutcome?: ((notifier: string, outcome: DeliveryOutcome) => void) | undefined;
}

/** How an attempt ended; `dropped` is the last one of a delivery that waited too long. */
export type DeliveryOutcome = "delivered" | "failed" | "dropped";

/** How long no other server takes a delivery that one has begun, and died since, in milliseconds. */
const LEASE_MS = 30_000;
/** An attempt may take longer than that: a mail server may look at a mail for minutes before it takes it. */
const RENEW_MS = LEASE_MS / 3;

/** What could not be delivered for so long says nothing any more, in milliseconds. */
export const OLDEST_MS = 7 * 24 * 3_600_000;
/** And in so many attempts, which take at least a day and a half: the clock may have leapt. */
const MOST_ATTEMPTS = 300;

/** How long a server that stops waits for what it sends, in milliseconds. */
const STOP_MS = 3000;

/**
 * Sends what waits in the outbox: at least once, to each notifier one after another, of each subject in order. A
 * receiver that is slow or does not answer holds up nobody but itself. A server that dies between the sending and the
 * note of it leaves a claim that ends by itself; then it is sent again, under the same delivery id.
 */
export class Deliverer {
  readonly #deps: DelivererDeps;
  /** Known to the rows that it has claimed. */
  readonly #holder: string;
  readonly #working = new Map<string, Promise<void>>();
  readonly #failing = new Set<string>();
  readonly #breakOff = new AbortController();
  #stopped = false;

  constructor(deps: DelivererDeps) {
    this.#deps = deps;
    this.#holder = deps.newId();
  }

  /** Notifiers whose last attempt by this server failed. */
  get failing(): ReadonlySet<string> {
    return this.#failing;
  }

  /** Begins to send what is due, to every notifier that nothing is being sent to. */
  async begin(): Promise<void> {
    const due = await this.#deps.database.read(async (tx) => await tx.notifications.dueNotifiers());
    for (const name of due) {
      if (this.#working.has(name) || this.#stopped) continue;
      if (!this.#deps.config.current().notifiers?.has(name)) continue;
      const work = this.#drain(name)
        .catch((error: unknown) =>
          this.#deps.log.warn({ err: error, notifier: name }, "notifications: tried again later"),
        )
        .finally(() => this.#working.delete(name));
      this.#working.set(name, work);
    }
  }

  /** Sends what is due, and waits until nothing is. */
  async drain(): Promise<void> {
    await this.begin();
    await Promise.all(this.#working.values());
  }

  /** Waits a moment for what is being sent, and breaks it off then: it is sent again, by this or another server. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const timer = setTimeout(() => this.#breakOff.abort(), STOP_MS);
    await Promise.all(this.#working.values());
    clearTimeout(timer);
  }

  async #drain(name: string): Promise<void> {
    const { database, config } = this.#deps;
    while (!this.#stopped) {
      // Asked again each time, since it may have changed: the next attempt goes to the address that is right now.
      const notifier = config.current().notifiers?.get(name);
      if (notifier === undefined) return;
      const claimed = await database.transaction(async (tx) => {
        const row = await tx.notifications.claim(name, this.#holder, LEASE_MS);
        const isOld = row !== undefined && tx.now.getTime() - row.createdAt.getTime() > OLDEST_MS;
        if (!isOld || row.attempts <= MOST_ATTEMPTS) return { row };
        await tx.notifications.drop(row.id);
        return { row, isTooOld: true };
      });
      if (claimed.row === undefined) return;
      if (claimed.isTooOld === true) this.#drop(claimed.row);
      else await this.#attempt(notifier, claimed.row);
    }
  }

  async #attempt(notifier: NotifierSpec, row: DeliveryRow): Promise<void> {
    const { database, sender, random, onOutcome } = this.#deps;
    const isOff = () => this.#breakOff.signal.aborted;
    const renewing = setInterval(() => void this.#renew(row), this.#deps.renewMs ?? RENEW_MS);
    const { ok, answer } = await sender
      .send(notifier, row, this.#breakOff.signal)
      .finally(() => clearInterval(renewing));
    await database.transaction(async (tx) => {
      if (ok) await tx.notifications.delivered(row.id, this.#holder);
      else await tx.notifications.failed(row.id, this.#holder, isOff() ? 0 : pauseAfter(row.attempts, random()));
    });
    // What was broken off because this server stops says nothing about the receiver.
    if (!ok && isOff()) return;
    onOutcome?.(notifier.name, ok ? "delivered" : "failed");
    this.#tell(notifier.name, row, ok, answer);
  }

  /** Tried again in some seconds where the database does not take it. */
  async #renew({ id }: DeliveryRow): Promise<void> {
    const { database } = this.#deps;
    await database.transaction(async (tx) => await tx.notifications.renew(id, this.#holder, LEASE_MS)).catch(() => {});
  }

  /** Logs changes only: a receiver that is away for a day would fill the log. */
  #tell(name: string, { event, deliveryId, attempts }: DeliveryRow, ok: boolean, answer: string): void {
    const fields = { notifier: name, event, delivery_id: deliveryId, attempts, answer };
    if (!ok && !this.#failing.has(name)) {
      this.#failing.add(name);
      this.#deps.log.error(fields, "notifications: a notifier cannot be reached; what it is to be told waits");
    } else if (ok && this.#failing.delete(name)) {
      this.#deps.log.info(fields, "notifications: a notifier is reached again");
    }
  }

  #drop({ notifier, event, deliveryId, createdAt }: DeliveryRow): void {
    this.#deps.onOutcome?.(notifier, "dropped");
    const fields = { notifier, event, delivery_id: deliveryId, since: createdAt.toISOString() };
    this.#deps.log.error(fields, "notifications: one could not be delivered for a week, and is dropped");
  }
}
