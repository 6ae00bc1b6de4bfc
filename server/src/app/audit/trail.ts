import type { AuditEvent, AuditKind } from "../../domain/audit.ts";
import type { Database } from "../ports/database.ts";
import type { Log } from "../settings.ts";

/** What {@link AuditTrail} needs. */
export interface AuditTrailDeps {
  readonly database: Database;
  readonly log: Log;
}

/** What use cases need of {@link AuditTrail}. */
export type AuditNotes = Pick<AuditTrail, "takes" | "note">;

/** Different events of one kind that are written as they are between two flushes, at most; what is more is counted. */
export const MOST_NOTED = { anonymous: 20, others: 60 } as const;

interface Counted {
  readonly event: AuditEvent;
  /** How often it came again. */
  count: number;
}

/**
 * Bounds the events that come as often as somebody likes: failed logins, refused calls, reads. The first of its kind,
 * caller, address, object and reason is written as it is; those that follow before the next {@link AuditTrail.flush},
 * which comes every minute, are one more row that says how many they were.
 */
export class AuditTrail {
  readonly #deps: AuditTrailDeps;
  #counted = new Map<string, Counted>();
  #overflow = new Map<AuditKind, number>();
  readonly #queue: AuditEvent[] = [];
  #writing: Promise<void> | undefined;

  constructor(deps: AuditTrailDeps) {
    this.#deps = deps;
  }

  /**
   * Whether the caller is to write this event, in its own transaction; else it was counted. Asked before the
   * transaction begins, which may run more than once.
   */
  takes(event: AuditEvent): boolean {
    const key = keyOf(event);
    const known = this.#counted.get(key);
    if (known !== undefined) {
      known.count++;
      return false;
    }
    const most = event.kind === "login.failed" ? MOST_NOTED.anonymous : MOST_NOTED.others;
    let ofKind = 0;
    for (const { event: other } of this.#counted.values()) if (other.kind === event.kind) ofKind++;
    if (ofKind >= most) {
      this.#overflow.set(event.kind, (this.#overflow.get(event.kind) ?? 0) + 1);
      return false;
    }
    this.#counted.set(key, { event, count: 0 });
    return true;
  }

  /** Notes an event that has no transaction of its own. It is written soon. */
  note(event: AuditEvent): void {
    if (!this.takes(event)) return;
    this.#queue.push(event);
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Writes how often events came again, and lets each be written as it is once more. Never throws. */
  async flush(): Promise<void> {
    await this.#writing;
    const counted = [...this.#counted.values()].filter(({ count }) => count > 0);
    const overflow = [...this.#overflow];
    this.#counted = new Map();
    this.#overflow = new Map();
    const events = [
      ...counted.map(({ event, count }) => ({ ...event, details: { ...event.details, again: String(count) } })),
      ...overflow.map(
        ([kind, count]): AuditEvent => ({
          kind,
          actor: "server",
          collectionName: "",
          outcome: kind === "version.read" ? "done" : "refused",
          reason: "too many different ones within a minute: these were only counted",
          details: { again: String(count) },
        }),
      ),
    ];
    await this.#insert(events);
  }

  async #write(): Promise<void> {
    while (this.#queue.length > 0) await this.#insert(this.#queue.splice(0));
  }

  async #insert(events: readonly AuditEvent[]): Promise<void> {
    if (events.length === 0) return;
    await this.#deps.database
      .transaction(async (tx) => await tx.audit(...events))
      .catch((error: unknown) =>
        // The log has each of them too.
        this.#deps.log.warn({ events: events.length, err: error }, "audit: events could not be written"),
      );
  }
}

function keyOf({ kind, actor, address, collectionName, object, outcome, reason }: AuditEvent): string {
  const by =
    typeof actor === "string"
      ? [actor]
      : "userName" in actor
        ? [actor.userName, actor.accessKey]
        : [actor.user.name, actor.accessKey, actor.origin?.address];
  return JSON.stringify([kind, by, address, collectionName, object, outcome, reason]);
}
