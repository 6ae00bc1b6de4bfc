/** What notifiers can be told of, in the order of the documentation; see `docs/notifications.md`. */
export const NOTIFICATION_EVENTS = [
  "missing",
  "failed",
  "shrunk",
  "over-soft-limit",
  "quota-nearly-full",
  "damaged",
  "unreadable",
  "stuck-commit",
  "rolled-back",
  "clock",
  "configuration-refused",
  "login-flood",
  "key-missing",
  "audit",
] as const;

/** One of {@link NOTIFICATION_EVENTS}. */
export type NotificationEvent = (typeof NOTIFICATION_EVENTS)[number];

/** Forms in which a webhook is called. */
export const WEBHOOK_FORMS = ["json", "slack", "ntfy", "ping"] as const;

/** One of {@link WEBHOOK_FORMS}. */
export type WebhookForm = (typeof WEBHOOK_FORMS)[number];

/** A receiver over HTTP. The URL may be a secret itself, since many services know callers by it. */
export interface WebhookTarget {
  readonly type: "webhook";
  readonly url: string;
  readonly form: WebhookForm;
  /** Key of the signature; undefined for none. Base64 after `whsec_`, else the bytes of the text. */
  readonly secret: string | undefined;
  /** Shown as `Authorization: Bearer`; undefined for none. */
  readonly token: string | undefined;
}

/** Receivers by mail, over one SMTP server. */
export interface MailTarget {
  readonly type: "mail";
  readonly host: string;
  readonly port: number;
  /** TLS from the first byte on; else STARTTLS where the server offers it. */
  readonly implicitTls: boolean;
  /** Credentials are sent over TLS only, unless the server is on this machine. */
  readonly credentials: { readonly user: string; readonly password: string } | undefined;
  readonly from: string;
  readonly to: readonly string[];
}

/** What a notifier watches. */
export interface NotifierScope {
  readonly name: string;
  /** Names of collections, and of organizations whose collections; both undefined for everything. */
  readonly collections: readonly string[] | undefined;
  readonly organizations: readonly string[] | undefined;
  readonly events: readonly NotificationEvent[];
  /** What goes on is told again after this long, in milliseconds; undefined for once only. */
  readonly repeatMs: number | undefined;
  /** Whether it is told that all is well again. */
  readonly recovery: boolean;
}

/** Who is told what, and how. */
export interface NotifierSpec extends NotifierScope {
  readonly target: WebhookTarget | MailTarget;
}

/** A heartbeat comes this often where `repeat` says nothing, in milliseconds. */
export const HEARTBEAT_MS = 3_600_000;

/** What goes on is said again this often, and holds for longer than that without, in milliseconds. */
export const SIGNAL_MS = 60_000;
export const SIGNAL_HOLD_MS = 3 * SIGNAL_MS;

/** A subject: a collection by its name, an organization, or the installation as a whole. */
export const SYSTEM_SUBJECT = "";

const ORGANIZATION_PREFIX = "organization:";

/** The subject of an organization; no collection has such a name. */
export function organizationSubject(name: string): string {
  return `${ORGANIZATION_PREFIX}${name}`;
}

/** The organization of a subject; undefined for another one. */
export function organizationOf(subject: string): string | undefined {
  return subject.startsWith(ORGANIZATION_PREFIX) ? subject.slice(ORGANIZATION_PREFIX.length) : undefined;
}

/**
 * Whether a notifier is told of this subject. One that names collections or organizations, as a tenant's does, is told
 * nothing of the installation as a whole.
 * @param organization the tenant of a collection; empty for none.
 */
export function watches(scope: NotifierScope, subject: string, organization: string): boolean {
  const { collections, organizations } = scope;
  if (collections === undefined && organizations === undefined) return true;
  if (subject === SYSTEM_SUBJECT) return false;
  const tenant = organizationOf(subject) ?? organization;
  if (tenant !== "" && organizations?.includes(tenant)) return true;
  return collections?.includes(subject) ?? false;
}

/** Something that is not as it should be. */
export interface Condition {
  readonly event: NotificationEvent;
  /** `warning`: backups still work. */
  readonly severity: "warning" | "failed";
  /** Since when, as far as that is known. */
  readonly since: Date | undefined;
  /** What was expected and found; for people. */
  readonly message: string;
  readonly whatToDo: string;
  /** The same for programs: names and values of the event, see `docs/notifications.md`. */
  readonly facts: Readonly<Record<string, string>>;
}

/**
 * What a delivery is about: `firing` at first, `reminder` while it goes on, `resolved` when all is well again; `ok` is a
 * heartbeat, `test` asked for by an administrator.
 */
export type NotificationStatus = "firing" | "reminder" | "resolved" | "ok" | "test";

/** Version of {@link Notification}; it is raised when the meaning of a field changes, not when one is added. */
export const NOTIFICATION_VERSION = 1;

/** What a receiver is told, without what the delivery adds. Holds no secret; kept as JSON, so times are texts. */
export interface Notification {
  readonly version: typeof NOTIFICATION_VERSION;
  readonly event: NotificationEvent | "heartbeat" | "test";
  readonly status: NotificationStatus;
  readonly severity: "ok" | "warning" | "failed";
  /** Empty for what is not about one collection. */
  readonly collection: string;
  /** Empty for none. */
  readonly organization: string;
  /** When it began, as far as that is known, in RFC 3339. */
  readonly since: string;
  /** When it was noticed, in RFC 3339. */
  readonly at: string;
  readonly message: string;
  readonly what_to_do: string;
  readonly facts: Readonly<Record<string, string>>;
}

const MOST_TEXT = 2000;
const MOST_FACT = 300;

/** The notification of a condition of a subject. Texts are cut to what receivers take. */
export function notificationOf(
  condition: Condition,
  status: NotificationStatus,
  subject: { readonly collection: string; readonly organization: string },
  times: { readonly since: Date; readonly at: Date },
): Notification {
  const facts = Object.entries(condition.facts).map(
    ([name, value]) => [cut(name, 100), cut(value, MOST_FACT)] as const,
  );
  const isOver = status === "resolved" || status === "ok";
  return {
    version: NOTIFICATION_VERSION,
    event: condition.event,
    status,
    severity: isOver ? "ok" : condition.severity,
    collection: cut(subject.collection, MOST_FACT),
    organization: cut(subject.organization, MOST_FACT),
    since: times.since.toISOString(),
    at: times.at.toISOString(),
    message: cut(condition.message, MOST_TEXT),
    what_to_do: isOver ? "" : cut(condition.whatToDo, MOST_TEXT),
    facts: Object.fromEntries(facts),
  };
}

/** Bounded, and without what neither databases nor receivers take: halves of characters, and NUL. */
function cut(text: string, most: number): string {
  const bounded = text.length <= most ? text : `${text.slice(0, most - 3)}...`;
  return bounded.toWellFormed().replaceAll("\0", "\ufffd");
}

const TITLES: Readonly<Record<Notification["event"], string>> = {
  missing: "backup missing",
  failed: "backup failed",
  shrunk: "backup shrunk",
  "over-soft-limit": "backup above its soft limit",
  "quota-nearly-full": "quota nearly full",
  damaged: "backup damaged",
  unreadable: "backup unreadable",
  "stuck-commit": "commit stuck",
  "rolled-back": "database rolled back",
  clock: "clock in doubt",
  "configuration-refused": "configuration refused",
  "login-flood": "flood of logins",
  "key-missing": "key missing",
  audit: "audit log changed or lost",
  heartbeat: "all is well",
  test: "test",
};

/** Says of an event that it is over. */
export function endedText(event: NotificationEvent): string {
  return `this is over: ${TITLES[event]}`;
}

/** What it is about in one line, without control characters: `pg-main: backup missing`. */
export function titleOf({ event, status, collection, organization }: Notification): string {
  const of = collection !== "" ? collection : organization !== "" ? `organization ${organization}` : "Strongroom";
  const how = status === "resolved" ? "all is well again: no longer " : status === "reminder" ? "still " : "";
  // Names come from the configuration, but a title is also a header of mail.
  return `${of}: ${how}${TITLES[event]}`.replaceAll(/\p{Cc}+/gu, " ");
}

/** Lines for people, without control characters other than the ends of lines. */
export function linesOf(notification: Notification): string[] {
  const { status, message, what_to_do: whatToDo, since, at, facts } = notification;
  const over = status === "ok" || status === "test";
  return [
    message,
    ...(whatToDo === "" ? [] : [`What to do: ${whatToDo}`]),
    over ? `At ${at}.` : status === "resolved" ? `From ${since} to ${at}.` : `Since ${since}, noticed at ${at}.`,
    ...Object.entries(facts).map(([name, value]) => `${name}: ${value}`),
  ].map((line) => line.replaceAll(/\p{Cc}+/gu, " "));
}

/** How long after a failed attempt the next one comes at the earliest, in milliseconds: doubled each time. */
const FIRST_PAUSE_MS = 5000;
/** And at the latest. */
const LONGEST_PAUSE_MS = 15 * 60_000;

/**
 * The pause before the next attempt, in milliseconds.
 * @param attempts that have failed, from 1.
 * @param random from 0 to 1: the pause is between half and the whole, so that receivers are not called all at once.
 */
export function pauseAfter(attempts: number, random: number): number {
  const whole = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(attempts - 1, 20));
  return Math.round(whole * (0.5 + random / 2));
}
