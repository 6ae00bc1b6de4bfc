import { createHash } from "node:crypto";
import { formatSize } from "@strongroom/protocol/sizes";
import { CLOCK_SLACK_MS, type ClockState, clockState, isBeyond } from "../../domain/clock.ts";
import type { CollectionSpec, Configuration } from "../../domain/configuration.ts";
import {
  type Condition,
  endedText,
  HEARTBEAT_MS,
  NOTIFICATION_VERSION,
  type Notification,
  type NotificationEvent,
  type NotificationStatus,
  type NotifierSpec,
  notificationOf,
  organizationOf,
  organizationSubject,
  SIGNAL_HOLD_MS,
  SYSTEM_SUBJECT,
  watches,
} from "../../domain/notifications.ts";
import { type SizeSums, sumVersions } from "../../domain/quota.ts";
import { type ConfigSource, isOutdated, pinned } from "../ports/config-source.ts";
import type { CollectionRow, Database, Transaction, UploadRow } from "../ports/database.ts";
import { NOTHING_NOTABLE } from "../ports/live-versions.ts";
import type { ReviewRow, SignalRow, ToldRow } from "../ports/notifications.ts";
import type { Log } from "../settings.ts";
import { keptSums, livePlan, staying } from "../versions/live-plan.ts";
import { comingVersions } from "../versions/removal.ts";
import { collectionConditions, type Findings, failure, severalFailures } from "./collection-conditions.ts";

/** What reviews need. */
export interface ReviewDeps {
  readonly database: Database;
  readonly config: ConfigSource;
  readonly log: Log;
  readonly newId: () => string;
}

/** Notifications that may wait for one notifier; what does not fit is told later, if it still goes on. */
export const MOST_QUEUED = 10_000;

/** A review is never further away, in milliseconds. */
const FURTHEST_MS = 24 * 3_600_000;
/** The installation as a whole is looked at this often, in milliseconds. */
const SYSTEM_MS = 60_000;
/** After this the review of a notifier whose outbox was full, or of a subject that failed, is tried again. */
const AGAIN_MS = 5 * 60_000;
/** What no server has in its configuration for so long is gone; replicas may take a change up one after another. */
const GONE_MS = 10 * 60_000;
/** What other servers are left to review by newer rules, and do not for so long, is reviewed by older ones. */
const LEFT_MS = 10 * 60_000;

/** What a review has done: of which subject, how many notifications it made, and for whom there was no room. */
export interface ReviewReport {
  readonly subject: string;
  readonly queued: number;
  readonly full: readonly string[];
}

/**
 * Reviews the subject that is due for the longest: finds what is not as it should be, compares it with what each
 * notifier was told, and takes the difference into the outbox, all in one transaction. Undefined when none is due.
 */
export async function reviewNext(deps: ReviewDeps): Promise<ReviewReport | undefined> {
  const { config } = pinned(deps);
  const configuration = config.current();
  // What a server does not know that could not take up the newest configuration, or was reviewed by other rules, is
  // reviewed by those that could: by its own it would say that all is well, or drop what only they would tell.
  const mine = isOutdated(config) ? { digests: digestsOf(configuration), leftMs: LEFT_MS } : undefined;
  let subject: string | undefined;
  try {
    return await deps.database.transaction(async (tx) => {
      const review = await tx.notifications.lockDue(FURTHEST_MS, mine);
      subject = review?.subject;
      return review === undefined ? undefined : await new Review(tx, { ...deps, config }, configuration, review).run();
    });
  } catch (error) {
    if (subject === undefined) throw error;
    // One that fails every time must not keep the others from being reviewed.
    deps.log.error({ err: error, subject }, "notifications: a review failed; it is tried again in some minutes");
    const failed = subject;
    await deps.database.transaction(async (tx) => {
      const reviewAt = new Date(tx.now.getTime() + AGAIN_MS);
      await tx.notifications.schedule(failed, { reviewAt, digest: "", goneSince: null });
    });
    return { subject, queued: 0, full: [] };
  }
}

/** Makes the reviews of all subjects due whose configuration is another than the one they were last reviewed by. */
export async function markChanged(deps: ReviewDeps): Promise<void> {
  const configuration = pinned(deps).config.current();
  const known = await deps.database.read(async (tx) => await tx.notifications.subjects());
  const digests = digestsOf(configuration);
  const changed = [...digests].filter(([subject, digest]) => known.get(subject) !== digest).map(([subject]) => subject);
  const gone = [...known.keys()].filter((subject) => !digests.has(subject));
  // In parts, so that no transaction locks many rows for long. Whoever publishes locks the review of a collection and
  // then that of its organization: no transaction may hold one of an organization and wait for one of a collection.
  const all = [...changed, ...gone];
  const isCollection = (subject: string) => subject !== SYSTEM_SUBJECT && organizationOf(subject) === undefined;
  for (const kind of [all.filter(isCollection), all.filter((subject) => !isCollection(subject))])
    for (let from = 0; from < kind.length; from += MARKED_AT_ONCE) {
      const part = kind.slice(from, from + MARKED_AT_ONCE);
      await deps.database.transaction(async (tx) => await tx.notifications.mark(part));
    }
}

const MARKED_AT_ONCE = 500;

const DIGESTS = new WeakMap<Configuration, ReadonlyMap<string, string>>();

/** Everything that is reviewed, with the digest of its rules; found once for each configuration. */
function digestsOf(configuration: Configuration): ReadonlyMap<string, string> {
  const { collections, organizations } = configuration;
  let digests = DIGESTS.get(configuration);
  if (digests === undefined) {
    const subjects = [SYSTEM_SUBJECT, ...collections.keys(), ...[...organizations.keys()].map(organizationSubject)];
    digests = new Map(subjects.map((subject) => [subject, digestOf(configuration, subject)]));
    DIGESTS.set(configuration, digests);
  }
  return digests;
}

/** Of everything in the configuration that a subject's review depends on; never of a secret. */
function digestOf(configuration: Configuration, subject: string): string {
  const spec = configuration.collections.get(subject) ?? configuration.organizations.get(organizationOf(subject) ?? "");
  const notifiers = [...(configuration.notifiers?.values() ?? [])]
    .filter((notifier) => subject === SYSTEM_SUBJECT || watches(notifier, subject, tenantOf(configuration, subject)))
    .map(({ target, ...scope }) => ({ ...scope, isPing: isPing({ target }) }));
  const text = JSON.stringify([spec ?? null, notifiers], (_, value) =>
    typeof value === "bigint" ? String(value) : value,
  );
  return createHash("sha256").update(text).digest("hex");
}

function tenantOf({ collections }: Configuration, subject: string): string {
  return organizationOf(subject) ?? collections.get(subject)?.organization ?? "";
}

function isPing({ target }: Pick<NotifierSpec, "target">): boolean {
  return target.type === "webhook" && target.form === "ping";
}

/** The review of one subject. */
class Review {
  readonly #tx: Transaction;
  readonly #deps: ReviewDeps;
  readonly #configuration: Configuration;
  /** Whether a newer configuration may say of notifiers what this one does not. */
  readonly #isOutdated: boolean;
  readonly #review: ReviewRow;
  readonly #full = new Set<string>();
  readonly #due: Date[] = [];
  #queued = 0;

  constructor(tx: Transaction, deps: ReviewDeps, configuration: Configuration, review: ReviewRow) {
    this.#tx = tx;
    this.#deps = deps;
    this.#configuration = configuration;
    this.#isOutdated = isOutdated(deps.config);
    const seen = (time: Date) => (isBeyond(time, tx.now) ? tx.now : time);
    this.#review = {
      ...review,
      firstSeenAt: seen(review.firstSeenAt),
      goneSince: review.goneSince && seen(review.goneSince),
    };
  }

  async run(): Promise<ReviewReport> {
    const { subject } = this.#review;
    const { notifications, now } = this.#tx;
    const told = await notifications.told(subject);
    const signals = await this.#signals();
    const findings = await this.#find(told, signals);
    if (findings === undefined && this.#isHere(now)) {
      // Another server may know it already.
      const goneSince = this.#review.goneSince ?? now;
      const reviewAt = new Date(goneSince.getTime() + GONE_MS);
      await notifications.schedule(subject, { reviewAt, digest: this.#review.digest, goneSince });
      return { subject, queued: 0, full: [] };
    }
    const { conditions, undecided, due } = findings ?? NOTHING;
    this.#due.push(...due);
    for (const notifier of this.#configuration.notifiers?.values() ?? []) {
      const of = told.filter((row) => row.notifier === notifier.name && row.event !== "heartbeat");
      if (!watches(notifier, subject, tenantOf(this.#configuration, subject)) && findings !== undefined)
        for (const row of this.#isOutdated ? [] : of) await this.#tx.notifications.untell(row);
      else await this.#tell(notifier, of, conditions, undecided, signals);
    }
    if (subject === SYSTEM_SUBJECT) await this.#beat(told);
    await this.#finish(findings === undefined);
    return { subject, queued: this.#queued, full: [...this.#full] };
  }

  /** Signals. An end further ahead than a signal holds was written by a wrong clock, and is written again. */
  async #signals(): Promise<SignalRow[]> {
    const { now, notifications } = this.#tx;
    const until = new Date(now.getTime() + SIGNAL_HOLD_MS);
    const signals = await notifications.signals(this.#review.subject);
    const isWrong = (row: SignalRow) => row.until !== null && isBeyond(row.until, until);
    for (const row of signals.filter(isWrong)) await notifications.signal({ ...row, until });
    return signals.map((row) => (isWrong(row) ? { ...row, until } : row));
  }

  #isHere(now: Date): boolean {
    const { goneSince } = this.#review;
    return goneSince === null || now.getTime() - goneSince.getTime() < GONE_MS;
  }

  /** Undefined for what is not configured. */
  async #find(told: readonly ToldRow[], signals: readonly SignalRow[]): Promise<Findings | undefined> {
    const { subject, firstSeenAt } = this.#review;
    const tx = this.#tx;
    if (subject === SYSTEM_SUBJECT) return await this.#system(signals);
    const organization = organizationOf(subject);
    if (organization !== undefined) return await this.#organization(organization);
    const spec = this.#configuration.collections.get(subject);
    if (spec === undefined) return undefined;
    const row = await tx.collections.findByName(subject);
    const clock = clockState(await tx.clock.read(), tx.now);
    const uploads = row === undefined ? [] : await tx.uploads.unsettled(row.id);
    return collectionConditions({
      spec,
      row,
      live:
        row === undefined
          ? NOTHING_NOTABLE
          : await tx.live.notable(row.id, spec, new Date(tx.now.getTime() + CLOCK_SLACK_MS)),
      kept: row === undefined ? sumVersions(spec, []) : await this.#kept(row, spec, uploads, clock),
      uploads,
      lastFailed: row === undefined ? undefined : await tx.collections.lastFailed(row.id),
      clock,
      firstSeenAt,
      isMissingTold: told.some(({ event }) => event === "missing"),
      now: tx.now,
    });
  }

  /** What stays of the live versions when the next backup is published, were it begun now. */
  async #kept(
    row: CollectionRow,
    spec: CollectionSpec,
    uploads: readonly UploadRow[],
    clock: ClockState,
  ): Promise<SizeSums> {
    const plan = await livePlan(this.#tx, row, spec, { begunAt: this.#tx.now, coming: comingVersions(uploads) });
    return keptSums(staying(plan, spec, clock.status === "right" ? undefined : clock), spec);
  }

  async #organization(name: string): Promise<Findings | undefined> {
    const spec = this.#configuration.organizations.get(name);
    if (spec === undefined) return undefined;
    const usage = await this.#tx.organizations.find(name);
    const used = usage === undefined ? 0n : usage.storedBytes + usage.reservedBytes + usage.trashBytes;
    const limit = spec.maxTotalSize;
    if (limit === undefined || used * 10n < limit * 9n) return NOTHING;
    const condition: Condition = {
      event: "quota-nearly-full",
      severity: "warning",
      since: undefined,
      message: `organization ${name} uses ${formatSize(used)} of ${formatSize(limit)}, removed versions included`,
      whatToDo: "raise maxTotalSize, or keep fewer versions in its collections",
      facts: { used_bytes: String(used), limit_bytes: String(limit) },
    };
    return { ...NOTHING, conditions: [condition] };
  }

  async #system(signals: readonly SignalRow[]): Promise<Findings> {
    const { now } = this.#tx;
    const clock = clockState(await this.#tx.clock.read(), now);
    const conditions = saidNow(signals, now);
    if (clock.status !== "right")
      conditions.push({
        event: "clock",
        severity: clock.status === "behind" ? "failed" : "warning",
        since: undefined,
        message: clock.message,
        whatToDo: "look at the clock of the database's machine; docs/clocks.md says what the server does meanwhile",
        facts: { state: clock.status, until: clock.until?.toISOString() ?? "" },
      });
    return { conditions, undecided: [], due: [new Date(now.getTime() + SYSTEM_MS)] };
  }

  async #tell(
    notifier: NotifierSpec,
    told: readonly ToldRow[],
    conditions: readonly Condition[],
    undecided: readonly NotificationEvent[],
    signals: readonly SignalRow[],
  ): Promise<void> {
    const wanted = conditions.filter(({ event }) => notifier.events.includes(event));
    const passed = signals.find(({ event, until }) => event === "failed" && until === null);
    const all = (last: Condition) => severalFailures(last, passed?.count ?? 1);
    for (const condition of wanted) {
      const before = told.find(({ event }) => event === condition.event);
      if (before === undefined) await this.#fire(notifier, condition.event === "failed" ? all(condition) : condition);
      else await this.#remind(notifier, condition, before);
    }
    const isTold = told.some(({ event }) => event === "failed") || wanted.some(({ event }) => event === "failed");
    // What happened before anybody was to be told is no news.
    const isNew = passed !== undefined && this.#tx.now.getTime() - passed.since.getTime() < FURTHEST_MS;
    if (isNew && !isTold && notifier.events.includes("failed")) {
      // The next backup was published before this review: both are told, in order.
      const row = {
        notifier: notifier.name,
        subject: this.#review.subject,
        event: "failed",
        since: passed.since,
      } as const;
      const isFired = await this.#fire(notifier, all(failure(passed.since, passed.message, passed.facts)));
      // Without room for the second it is tried again, since the row stays.
      if (isFired && (!notifier.recovery || (await this.#resolve(notifier, over(row, endedText("failed"))))))
        await this.#tx.notifications.untell(row);
    }
    const goesOn = new Set<string>([...wanted.map(({ event }) => event), ...undecided]);
    for (const row of told) {
      if (goesOn.has(row.event)) continue;
      const isWanted = (notifier.events as readonly string[]).includes(row.event);
      if (!isWanted && this.#isOutdated) continue;
      if (isWanted && notifier.recovery) {
        const event = row.event as NotificationEvent;
        const isConfigured = this.#configuration.collections.has(this.#review.subject);
        const message = isConfigured || this.#isSystem() ? endedText(event) : UNCONFIGURED;
        // Without room it is tried again, since the row stays.
        if (!(await this.#resolve(notifier, over({ ...row, event }, message)))) continue;
      }
      await this.#tx.notifications.untell(row);
    }
  }

  #isSystem(): boolean {
    const { subject } = this.#review;
    return subject === SYSTEM_SUBJECT || this.#configuration.organizations.has(organizationOf(subject) ?? "");
  }

  async #fire(notifier: NotifierSpec, condition: Condition): Promise<boolean> {
    const { now, notifications } = this.#tx;
    const since = condition.since ?? now;
    if (!(await this.#enqueue(notifier, this.#body(condition, "firing", since)))) return false;
    const row = { notifier: notifier.name, subject: this.#review.subject, event: condition.event, since, toldAt: now };
    await notifications.tell(row);
    // So that it beats again as soon as this is over.
    if (isPing(notifier)) await notifications.untell({ ...row, subject: SYSTEM_SUBJECT, event: "heartbeat" });
    this.#repeatAt(notifier, now);
    return true;
  }

  async #remind(notifier: NotifierSpec, condition: Condition, before: ToldRow): Promise<void> {
    const { now, notifications } = this.#tx;
    if (notifier.repeatMs === undefined) return;
    const isAhead = isBeyond(before.toldAt, now);
    const dueAt = before.toldAt.getTime() + notifier.repeatMs;
    if (!isAhead && now.getTime() < dueAt) return this.#repeatAt(notifier, before.toldAt);
    // One that still waits would only be said twice.
    const waits = isAhead || (await notifications.isQueued(before));
    if (!waits && !(await this.#enqueue(notifier, this.#body(condition, "reminder", before.since)))) return;
    await notifications.tell({ ...before, toldAt: now });
    this.#repeatAt(notifier, now);
  }

  /** Of a ping the heartbeat says it, as soon as nothing else goes on. */
  async #resolve(notifier: NotifierSpec, condition: Condition & { readonly since: Date }): Promise<boolean> {
    if (isPing(notifier)) return true;
    return await this.#enqueue(notifier, this.#body(condition, "resolved", condition.since));
  }

  /** Tells notifiers of pings that all is well, for as long as it is. */
  async #beat(told: readonly ToldRow[]): Promise<void> {
    const { now, notifications } = this.#tx;
    const pings = [...(this.#configuration.notifiers?.values() ?? [])].filter(isPing);
    if (pings.length === 0) return;
    const open = await notifications.openCounts();
    const waiting = new Set((await notifications.queues()).map(({ notifier }) => notifier));
    for (const notifier of pings) {
      const row = { notifier: notifier.name, subject: SYSTEM_SUBJECT, event: "heartbeat" } as const;
      const last = told.find(({ notifier: name, event }) => name === notifier.name && event === "heartbeat");
      if ((open.get(notifier.name) ?? 0) > 0) continue;
      const dueAt = last === undefined ? 0 : last.toldAt.getTime() + (notifier.repeatMs ?? HEARTBEAT_MS);
      // Not before an older failure, which its receiver would take for the last word.
      if (waiting.has(notifier.name)) continue;
      if (last !== undefined && !isBeyond(last.toldAt, now) && now.getTime() < dueAt) continue;
      if (await this.#enqueue(notifier, heartbeat(now))) await notifications.tell({ ...row, since: now, toldAt: now });
    }
  }

  #body(condition: Condition, status: NotificationStatus, since: Date): Notification {
    const { subject } = this.#review;
    const isCollection = subject !== SYSTEM_SUBJECT && organizationOf(subject) === undefined;
    const of = { collection: isCollection ? subject : "", organization: tenantOf(this.#configuration, subject) };
    return notificationOf(condition, status, of, { since, at: this.#tx.now });
  }

  async #enqueue(notifier: NotifierSpec, body: Notification): Promise<boolean> {
    const { name } = notifier;
    const { subject } = this.#review;
    const row = { deliveryId: this.#deps.newId(), notifier: name, subject, event: body.event, body };
    if (!(await this.#tx.notifications.enqueue(row, MOST_QUEUED))) {
      this.#full.add(name);
      this.#due.push(new Date(this.#tx.now.getTime() + AGAIN_MS));
      return false;
    }
    this.#queued += 1;
    return true;
  }

  #repeatAt({ repeatMs }: NotifierSpec, toldAt: Date): void {
    if (repeatMs !== undefined) this.#due.push(new Date(toldAt.getTime() + repeatMs));
  }

  async #finish(isGone: boolean): Promise<void> {
    const { now, notifications } = this.#tx;
    const { subject } = this.#review;
    if (isGone) return await notifications.forget(subject);
    await notifications.dropSignals(subject);
    const own = digestOf(this.#configuration, subject);
    // By older rules than before, for want of somebody who knows these: who does reviews it again.
    const isLeft = this.#isOutdated && this.#review.digest !== own;
    const furthest = now.getTime() + (isLeft ? LEFT_MS : FURTHEST_MS);
    const reviewAt = new Date(
      Math.min(furthest, ...this.#due.map((time) => time.getTime()).filter((ms) => ms > now.getTime())),
    );
    await notifications.schedule(subject, {
      reviewAt,
      digest: isLeft ? this.#review.digest : own,
      goneSince: null,
    });
  }
}

/** That a condition is over, which a notifier was told of. */
function over({ event, since }: { readonly event: NotificationEvent; readonly since: Date }, message: string) {
  return { event, severity: "warning", since, message, whatToDo: "", facts: {} } as const;
}

/** What servers say of themselves: it goes on for as long as one of them says so. */
function saidNow(signals: readonly SignalRow[], now: Date): Condition[] {
  const goingOn = signals.filter(({ until }) => until !== null && until > now);
  const byEvent = Map.groupBy(goingOn, ({ event }) => event);
  return [...byEvent].map(([event, rows]) => {
    const first = rows.reduce((a, b) => (b.since < a.since ? b : a));
    const message = rows.length === 1 ? first.message : `on ${rows.length} servers; on one of them: ${first.message}`;
    return { event, severity: "failed", since: first.since, message, whatToDo: WHAT_TO_DO[event] ?? "", facts: {} };
  });
}

const NOTHING: Findings = { conditions: [], undecided: [], due: [] };
const UNCONFIGURED = "it is not configured any more, so nothing is said about it from now on";

const WHAT_TO_DO: Readonly<Partial<Record<NotificationEvent, string>>> = {
  "configuration-refused": "correct it; `strongroom check-config` lists all problems. The last good state is in force",
  "login-flood": "look in the log where the logins come from, and keep them away before the server",
  "key-missing": "put the key where the server looks for it; the log says which it is",
  audit: "`strongroom audit verify` says what was changed; docs/audit.md says how the log goes on",
};

function heartbeat(at: Date): Notification {
  return {
    version: NOTIFICATION_VERSION,
    event: "heartbeat",
    status: "ok",
    severity: "ok",
    collection: "",
    organization: "",
    since: at.toISOString(),
    at: at.toISOString(),
    message: "nothing that this notifier watches is wrong",
    what_to_do: "",
    facts: {},
  };
}
