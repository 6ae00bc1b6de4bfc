import type { Principal } from "./access.ts";

/**
 * Every kind of event of the audit log: what happened, and whether it is administrative, so that a signed head follows
 * it at once. A kind is added here, and to the table of docs/audit.md, which a test compares.
 */
export const AUDIT_KINDS = {
  "session.created": { what: "a login" },
  "session.refreshed": { what: "a session was prolonged by another one" },
  "session.revoked": { what: "a session and its chain were ended" },
  "signing-key.rotated": { what: "systemAdmin made another key that signs tokens", administrative: true },
  "sessions.revoked": { what: "all sessions of a user or access key were ended" },
  "login.failed": { what: "failed logins from one address as one user" },
  "call.refused": { what: "calls that were refused, by method and reason" },
  "upload.created": { what: "an upload was begun" },
  "upload.aborted": { what: "an upload was ended without a version" },
  "upload.expired": { what: "an upload was ended since nobody continued it" },
  "upload.given-up": { what: "an operator ended a commit that the store lost", administrative: true },
  "version.committed": { what: "an upload became a version" },
  "version.added": { what: "a version was added from the store, after the database was rolled back" },
  "version.removed": { what: "a version was deleted by a person, or removed by rotation" },
  "version.undeleted": { what: "a removed version was brought back" },
  "version.confirmed": { what: "somebody confirmed the size of a version" },
  "version.held": { what: "a version was held" },
  "version.released": { what: "the hold of a version was ended" },
  "version.read": { what: "the bytes of a version were asked for" },
  "version.purged": { what: "the bytes of a removed version were deleted" },
  "version.damaged": { what: "a verification found a version damaged" },
  "version.repaired": { what: "a damaged version was found whole again" },
  "object.deleted": { what: "an operator had an unknown object deleted", administrative: true },
  "collection.recovered": { what: "a collection was rebuilt from the store", administrative: true },
  "collection.imported": { what: "versions of Backup Repository were taken over", administrative: true },
  "sessions.imported": { what: "sessions of Backup Repository were taken over", administrative: true },
  "import.finished": {
    what: "an operator ended the time in which one can go back to Backup Repository",
    administrative: true,
  },
  "collection.policy-confirmed": {
    what: "changed rules of rotation were confirmed, with how many versions they remove",
  },
  "collection.rollback-confirmed": {
    what: "an operator confirmed that the database was rolled back",
    administrative: true,
  },
  "clock.confirmed": { what: "an operator confirmed the clock", administrative: true },
  "configuration.changed": { what: "a server noticed a changed configuration object", administrative: true },
  "configuration.applied": { what: "somebody wrote a configuration object", administrative: true },
  "configuration.deleted": { what: "somebody deleted a configuration object", administrative: true },
  "access-key.created": { what: "an access key was made", administrative: true },
  "password.set": { what: "a password was set", administrative: true },
  "organization.closed": { what: "an organization was made read-only", administrative: true },
  "organization.opened": { what: "a closed organization was opened again", administrative: true },
  "organization.purged": { what: "everything of an organization was purged", administrative: true },
  "sweep.requested": { what: "an administrator asked for a sweep", administrative: true },
  "verification.requested": { what: "an administrator asked for a verification", administrative: true },
  "audit.began": { what: "the database began a chain of audit events", administrative: true },
  "audit.loss-accepted": { what: "an operator accepted that chained events are lost", administrative: true },
} as const satisfies Readonly<Record<string, { readonly what: string; readonly administrative?: true }>>;

/** One of {@link AUDIT_KINDS}. */
export type AuditKind = keyof typeof AUDIT_KINDS;

/** Whether a signed head follows at once. */
export function isAdministrative(kind: string): boolean {
  const entry: { readonly administrative?: true } | undefined = (
    AUDIT_KINDS as Readonly<Record<string, { readonly administrative?: true }>>
  )[kind];
  return entry?.administrative === true;
}

/** A user in a session, as the row of an upload names it. */
export interface AuditedUser {
  readonly userName: string;
  readonly accessKey: string;
  readonly sessionId: string;
}

/**
 * Who did it: a caller, a user that a row names, the server by itself, or an operator by a command on the server's
 * machine.
 */
export type AuditActor = Principal | AuditedUser | "server" | "operator";

/** A security-relevant event, as a use case says it. */
export interface AuditEvent {
  readonly kind: AuditKind;
  readonly actor: AuditActor;
  /** The collection it happened in; empty for none. */
  readonly collectionName: string;
  /** What it was done to, where that is no collection and no version: a session, a configuration object. */
  readonly object?: string;
  /** How it ended; done when left out. */
  readonly outcome?: AuditOutcome;
  /** Why it was refused or failed, or why it was done. */
  readonly reason?: string;
  /** Where it came from, for events of somebody who is no caller yet. */
  readonly address?: string;
  readonly requestId?: string;
  /** Facts by name; never a secret. */
  readonly details: Readonly<Record<string, string>>;
}

/** How what an event tells of ended. */
export type AuditOutcome = "done" | "refused" | "failed";

/** An event as it is written, by the columns of its row. */
export interface AuditRecord {
  readonly kind: string;
  /** `user:<name>`, `server` or `operator`. */
  readonly actor: string;
  readonly accessKey: string;
  readonly sessionId: string;
  readonly address: string;
  readonly requestId: string;
  readonly collectionName: string;
  readonly object: string;
  readonly outcome: AuditOutcome;
  readonly reason: string;
  readonly details: Record<string, string>;
}

/** The longest text of an event, in characters, and how many details it has at most; what is more is cut. */
export const AUDIT_LIMITS = { text: 512, details: 32, name: 64 } as const;

/** An event as it is written: within its bounds, and only what every database and every reader of JSON takes. */
export function auditRecord(event: AuditEvent): AuditRecord {
  const { by, accessKey, sessionId, origin } = actorOf(event.actor);
  const details = Object.entries(event.details).slice(0, AUDIT_LIMITS.details);
  return {
    kind: event.kind,
    actor: auditText(by),
    accessKey: auditText(accessKey),
    sessionId: auditText(sessionId),
    address: auditText(event.address ?? origin?.address ?? ""),
    requestId: auditText(event.requestId ?? origin?.requestId ?? ""),
    collectionName: auditText(event.collectionName),
    object: auditText(event.object ?? ""),
    outcome: event.outcome ?? "done",
    reason: auditText(event.reason ?? ""),
    details: Object.fromEntries(
      details.map(([name, value]) => [auditText(name).slice(0, AUDIT_LIMITS.name), auditText(value)]),
    ),
  };
}

function actorOf(actor: AuditActor): {
  readonly by: string;
  readonly accessKey: string;
  readonly sessionId: string;
  readonly origin: Principal["origin"];
} {
  if (typeof actor === "string") return { by: actor, accessKey: "", sessionId: "", origin: undefined };
  const { accessKey, sessionId } = actor;
  if ("userName" in actor) return { by: `user:${actor.userName}`, accessKey, sessionId, origin: undefined };
  return { by: `user:${actor.user.name}`, accessKey, sessionId, origin: actor.origin };
}

/** A text within its bound, well-formed and without characters of control. */
export function auditText(text: string): string {
  const short = text.length <= AUDIT_LIMITS.text ? text : `${text.slice(0, AUDIT_LIMITS.text - 1)}…`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be kept.
  return short.toWellFormed().replace(/[\u0000-\u001f\u007f]/g, " ");
}
