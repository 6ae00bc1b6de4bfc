import type { Configuration } from "../../domain/configuration.ts";
import { type NotificationEvent, SIGNAL_HOLD_MS, SIGNAL_MS, SYSTEM_SUBJECT } from "../../domain/notifications.ts";
import type { QueueFigures } from "../ports/notifications.ts";
import { Deliverer, type DelivererDeps, OLDEST_MS } from "./deliverer.ts";
import { MOST_QUEUED, markChanged, type ReviewDeps, reviewNext } from "./review.ts";

/** Something that this server sees going on, such as a flood of logins; undefined while it does not. */
export interface WatchedSignal {
  readonly event: NotificationEvent;
  readonly message: () => string | undefined;
}

/** What notifications need. */
export interface NotificationDeps extends ReviewDeps, DelivererDeps {
  /** Tells this server from others over the same database. */
  readonly serverId: string;
  /** What this server says of itself. */
  readonly signals: readonly WatchedSignal[];
}

/** Between two looks at what is due, in milliseconds. */
const TICK_MS = 1000;
/** Reviews of one look: after a change of the whole configuration there are many. */
const REVIEWS_AT_ONCE = 50;
/** What belongs to notifiers that are not configured any more is looked for this often, in milliseconds. */
const FORGET_MS = 3_600_000;

/**
 * Tells notifiers what is not as it should be. Any number of servers over one database do it together: each subject is
 * reviewed, and each notification sent, by one of them. Costs nothing while no notifier is configured, and what it
 * costs otherwise depends on what happens and not on the number of collections.
 */
export class Notifications {
  readonly #deps: NotificationDeps;
  readonly #deliverer: Deliverer;
  readonly #full = new Set<string>();
  #known: Configuration | undefined;
  #said = new Map<NotificationEvent, { readonly message: string; readonly at: number }>();
  #forgotAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #stopped = false;
  #hasFailed = false;

  constructor(deps: NotificationDeps) {
    this.#deps = deps;
    this.#deliverer = new Deliverer(deps);
  }

  /** Looks at what is due now, and from then on. */
  start(): void {
    if (this.#stopped) return;
    this.#running = this.#tick().finally(() => {
      if (this.#stopped) return;
      this.#timer = setTimeout(() => this.start(), TICK_MS);
      this.#timer.unref();
    });
  }

  /** Ends; what is being sent is broken off, and sent again by another server or later. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
    await this.#deliverer.stop();
  }

  /** Reviews everything that is due; at most `most` subjects. Returns how many. */
  async review(most = Number.POSITIVE_INFINITY): Promise<number> {
    await this.#takeUp();
    for (let reviewed = 0; ; reviewed++) {
      if (reviewed >= most || this.#stopped) return reviewed;
      const report = await reviewNext(this.#deps);
      if (report === undefined) return reviewed;
      for (const notifier of report.full) this.#isFull(notifier);
    }
  }

  /** Sends everything that is due, and waits for it. */
  async deliver(): Promise<void> {
    await this.#deliverer.drain();
  }

  /** What waits, by notifier, and whether the last attempt of this server failed. */
  async figures(): Promise<readonly (QueueFigures & { readonly ageMs: number; readonly isFailing: boolean })[]> {
    const names = [...(this.#deps.config.current().notifiers?.keys() ?? [])];
    if (names.length === 0) return [];
    const { now, queues } = await this.#deps.database.read(async (tx) => {
      return { now: tx.now, queues: new Map((await tx.notifications.queues()).map((each) => [each.notifier, each])) };
    });
    return names.map((notifier) => {
      const { queued = 0, oldestAt = now } = queues.get(notifier) ?? {};
      const ageMs = Math.max(0, now.getTime() - oldestAt.getTime());
      return { notifier, queued, oldestAt, ageMs, isFailing: this.#deliverer.failing.has(notifier) };
    });
  }

  async #tick(): Promise<void> {
    try {
      if (this.#isIdle()) return;
      await this.say();
      await this.forget();
      await this.review(REVIEWS_AT_ONCE);
      await this.#deliverer.begin();
      this.#hasFailed = false;
    } catch (error) {
      if (!this.#hasFailed)
        this.#deps.log.warn({ err: error }, "notifications: failed; it is tried again every second");
      this.#hasFailed = true;
    }
  }

  /** Whether nobody is to be told anything, now and since the last look. */
  #isIdle(): boolean {
    const isNone = (configuration: Configuration | undefined) => (configuration?.notifiers?.size ?? 0) === 0;
    return isNone(this.#deps.config.current()) && isNone(this.#known);
  }

  /** Takes up a changed configuration. */
  async #takeUp(): Promise<void> {
    const current = this.#deps.config.current();
    if (current === this.#known) return;
    await markChanged(this.#deps);
    this.#known = current;
  }

  /** Says what this server sees, while it goes on, and once when it is over. */
  async say(): Promise<void> {
    const { serverId: server, signals } = this.#deps;
    for (const { event, message } of signals) {
      const text = message();
      const said = this.#said.get(event);
      const isFresh = said !== undefined && said.message === text && performance.now() - said.at < SIGNAL_MS;
      if (isFresh || (text === undefined && said === undefined)) continue;
      await this.#deps.database.transaction(async (tx) => {
        const until = text === undefined ? tx.now : new Date(tx.now.getTime() + SIGNAL_HOLD_MS);
        const row = { subject: SYSTEM_SUBJECT, event, since: tx.now, until, message: text ?? said!.message, server };
        await tx.notifications.signal(row);
      });
      if (text === undefined) this.#said.delete(event);
      else this.#said.set(event, { message: text, at: performance.now() });
    }
  }

  /** Drops what belongs to notifiers that are gone, once it is too old to be told: replicas may differ for a while. */
  async forget(): Promise<void> {
    if (performance.now() - this.#forgotAt < FORGET_MS) return;
    // A server that cannot take up the newest configuration does not know the notifiers that others tell.
    if (this.#deps.config.status?.().problem !== undefined) return;
    const names = [...(this.#deps.config.current().notifiers?.keys() ?? [])];
    const dropped = await this.#deps.database.transaction(
      async (tx) => await tx.notifications.forgetNotifiers(names, new Date(tx.now.getTime() - OLDEST_MS)),
    );
    this.#forgotAt = performance.now();
    if (dropped > 0)
      this.#deps.log.warn(
        { dropped },
        "notifications: dropped what waited for notifiers that are not configured any more",
      );
  }

  #isFull(notifier: string): void {
    this.#deps.onOutcome?.(notifier, "dropped");
    if (this.#full.has(notifier)) return;
    this.#full.add(notifier);
    setTimeout(() => this.#full.delete(notifier), FORGET_MS).unref();
    const fields = { notifier, most: MOST_QUEUED };
    this.#deps.log.error(
      fields,
      "notifications: too many wait for a notifier; what goes on is told when there is room",
    );
  }
}
