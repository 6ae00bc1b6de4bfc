import type { Notification, NotificationEvent, NotifierSpec } from "../../domain/notifications.ts";

/** When the conditions of a subject are looked at next. */
export interface ReviewRow {
  /** A collection, an organization, or the installation; see `domain/notifications.ts`. */
  readonly subject: string;
  readonly reviewAt: Date;
  /** Of the configuration that it was last reviewed by. */
  readonly digest: string;
  readonly firstSeenAt: Date;
  /** Since when it is not configured; null while it is. */
  readonly goneSince: Date | null;
}

/** Something that happened, kept until it was reviewed; or that goes on until somebody stops saying so. */
export interface SignalRow {
  readonly subject: string;
  readonly event: NotificationEvent;
  readonly since: Date;
  /** Null for what happened at one time. */
  readonly until: Date | null;
  readonly message: string;
  /** How often it happened since the last review. */
  readonly count: number;
  /** Of the last time: names and values of the event, see `docs/notifications.md`. */
  readonly facts: Readonly<Record<string, string>>;
  /** Which server says so of itself; empty for what is no server's. */
  readonly server: string;
}

/** That a notifier was told of a condition that goes on. */
export interface ToldRow {
  readonly notifier: string;
  readonly subject: string;
  readonly event: string;
  readonly since: Date;
  readonly toldAt: Date;
}

/** A notification on its way to one notifier. */
export interface DeliveryRow {
  /** Orders what goes to one notifier. */
  readonly id: bigint;
  /** The same at every attempt, so that a receiver knows it again. */
  readonly deliveryId: string;
  readonly notifier: string;
  readonly subject: string;
  readonly event: string;
  readonly body: Notification;
  readonly createdAt: Date;
  /** Attempts begun, this one included. */
  readonly attempts: number;
}

/** What waits for one notifier. */
export interface QueueFigures {
  readonly notifier: string;
  readonly queued: number;
  readonly oldestAt: Date;
}

/**
 * Access to what is to be told. Whatever changes the health of a collection marks its review in the same step: that is
 * done where the rows are written (`adapters/postgres`), so that no use case can forget it.
 */
export interface NotificationRepository {
  /** The subjects that are reviewed are due now; new ones are made. */
  mark(subjects: readonly string[]): Promise<void>;
  /** Every subject that is reviewed, with the digest of the configuration it was last reviewed by. */
  subjects(): Promise<Map<string, string>>;
  /**
   * Locks the subject that is due for the longest, until the transaction ends; undefined for none. One that another
   * server reviews is passed over. A review that is further ahead than `furthestMs` was written by a wrong clock.
   * @param of the only subjects that may be locked, with the digest that they must have unless they are due for longer
   * than `leftMs`; any when left out.
   */
  lockDue(
    furthestMs: number,
    of?: { readonly digests: ReadonlyMap<string, string>; readonly leftMs: number },
  ): Promise<ReviewRow | undefined>;
  /** Says when a locked subject is due again. */
  schedule(subject: string, next: Pick<ReviewRow, "reviewAt" | "digest" | "goneSince">): Promise<void>;
  /** The subject is gone. */
  forget(subject: string): Promise<void>;
  /** Says that something happens, or goes on, and marks its subject; `since` of one that goes on stays. */
  signal(row: Omit<SignalRow, "count" | "facts">): Promise<void>;
  signals(subject: string): Promise<SignalRow[]>;
  /** Drops the signals of a locked subject that are over. */
  dropSignals(subject: string): Promise<void>;
  told(subject: string): Promise<ToldRow[]>;
  /** How many conditions each notifier was told of that go on, heartbeats aside. */
  openCounts(): Promise<Map<string, number>>;
  /** Notes that a notifier was told. */
  tell(row: ToldRow): Promise<void>;
  /** Notes that there is nothing to tell it of any more. */
  untell(row: Pick<ToldRow, "notifier" | "subject" | "event">): Promise<void>;
  /** Takes a notification for a notifier, unless it has `most` of them waiting. Returns whether it was taken. */
  enqueue(
    row: Pick<DeliveryRow, "deliveryId" | "notifier" | "subject" | "event" | "body">,
    most: number,
  ): Promise<boolean>;
  /** Whether something waits for this notifier that is about this. */
  isQueued(of: Pick<DeliveryRow, "notifier" | "subject" | "event">): Promise<boolean>;
  /** Notifiers that something is due for. */
  dueNotifiers(): Promise<string[]>;
  /**
   * Claims what is to be sent next to a notifier, for `leaseMs`: the oldest of each subject only, so that they arrive in
   * order. Undefined when nothing is due, or another server sends it.
   */
  claim(notifier: string, holder: string, leaseMs: number): Promise<DeliveryRow | undefined>;
  /** Claims it for `leaseMs` from now; nothing where the claim was over, and another server may have taken it. */
  renew(id: bigint, holder: string, leaseMs: number): Promise<void>;
  /** It arrived. Returns false when the claim was over, and another server may have sent it too. */
  delivered(id: bigint, holder: string): Promise<boolean>;
  /** It did not arrive, and is tried again after `pauseMs`. */
  failed(id: bigint, holder: string, pauseMs: number): Promise<void>;
  /** Nobody waits for it any more. */
  drop(id: bigint): Promise<void>;
  /** What waits, by notifier. */
  queues(): Promise<QueueFigures[]>;
  /** Deletes what belongs to no notifier of these names and is older than `before`. Returns how many waited. */
  forgetNotifiers(names: readonly string[], before: Date): Promise<number>;
}

/** How an attempt ended. */
export interface SendOutcome {
  readonly ok: boolean;
  /** What the receiver answered, or why it could not; for people, one line, without any secret. */
  readonly answer: string;
}

/** Sends notifications. Never throws, shows no secret, and ends by itself: after minutes where a mail server is slow. */
export interface NotificationSender {
  send(
    notifier: NotifierSpec,
    delivery: Pick<DeliveryRow, "deliveryId" | "body">,
    signal: AbortSignal,
  ): Promise<SendOutcome>;
}
