import { parseDuration, quoted, ValueError } from "@strongroom/protocol/sizes";
import {
  HEARTBEAT_MS,
  type MailTarget,
  NOTIFICATION_EVENTS,
  type NotificationEvent,
  type NotifierSpec,
  WEBHOOK_FORMS,
  type WebhookTarget,
} from "../domain/notifications.ts";
import type { ConfigObject } from "./document.ts";
import { suggestion } from "./names.ts";
import type { ObjectNode, ValueNode } from "./node.ts";
import type { SecretStore } from "./secrets.ts";
import type { NameReference } from "./user.ts";

/** A notifier as it was read. */
export interface ReadNotifier {
  readonly notifier: NotifierSpec | undefined;
  readonly collections: readonly NameReference[];
  readonly organizations: readonly NameReference[];
}

const LEAST_REPEAT_MS = 60_000;
const MOST_NAMES = 1000;
const MOST_RECEIVERS = 20;
const MOST_TEXT = 2048;
const LEAST_SECRET = 16;

/** Reads an object of kind BackupNotifier; what is wrong is reported, and the result then not to be used. */
export function readNotifier({ name, root }: ConfigObject, secrets: SecretStore): ReadNotifier {
  const spec = root.require("spec", "a mapping with webhook or mail")?.object();
  root.warnUnknown();
  const collections = readNames(spec, "collections");
  const organizations = readNames(spec, "organizations");
  const webhook = spec?.get("webhook")?.object();
  const mail = spec?.get("mail")?.object();
  if (spec && !webhook === !mail)
    spec.error(`expected either webhook or mail, got ${webhook ? "both" : "none"}; one notifier has one receiver`);
  const target = webhook ? readWebhook(webhook, secrets) : mail ? readMail(mail, secrets) : undefined;
  const events = readEvents(spec);
  const repeatMs = spec?.get("repeat")?.parsed(repeatDuration);
  const recovery = spec?.get("recovery")?.flag() ?? true;
  spec?.get("description")?.text(); // For the people who read the file.
  spec?.warnUnknown();
  const notifier = target && {
    name,
    collections: collections?.map((each) => each.name),
    organizations: organizations?.map((each) => each.name),
    events,
    repeatMs: repeatMs ?? (target.type === "webhook" && target.form === "ping" ? HEARTBEAT_MS : undefined),
    recovery,
    target,
  };
  return { notifier, collections: collections ?? [], organizations: organizations ?? [] };
}

function readNames(spec: ObjectNode | undefined, field: string): NameReference[] | undefined {
  const node = spec?.get(field);
  const items = node?.items();
  if (!node || !items) return undefined;
  if (items.length === 0) node.error("expected at least one name, got an empty list; leave the field out for all");
  if (items.length > MOST_NAMES) node.error(`expected at most ${MOST_NAMES} names, got ${items.length}`);
  return items.flatMap((item) => {
    const name = item.text();
    return name === undefined ? [] : [{ name, node: item }];
  });
}

function readEvents(spec: ObjectNode | undefined): NotificationEvent[] {
  const node = spec?.get("events");
  if (!node) return [...NOTIFICATION_EVENTS];
  const items = node.items() ?? [];
  if (items.length === 0) node.error("expected at least one event, got an empty list; leave the field out for all");
  const events = new Set<NotificationEvent>();
  for (const item of items) {
    const name = item.text();
    const event = NOTIFICATION_EVENTS.find((known) => known === name);
    if (event) events.add(event);
    else if (name !== undefined)
      item.error(
        `expected one of ${NOTIFICATION_EVENTS.join(", ")}, got ${quoted(name)}${suggestion(name, NOTIFICATION_EVENTS)}`,
      );
  }
  return [...events];
}

function repeatDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms < LEAST_REPEAT_MS)
    throw new ValueError(`expected a duration of at least 1m, got ${quoted(text)}; leave the field out for once only`);
  return ms;
}

/** Messages show nothing of the URL, since it may be a secret. */
function webhookUrl(text: string): string {
  const expected = "expected a URL such as https://example.org/hook";
  const url = text.length <= MOST_TEXT && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== "https:" && url.protocol !== "http:"))
    throw new ValueError(`${expected}, of at most ${MOST_TEXT} characters, got something else (not shown)`);
  if (url.username !== "" || url.password !== "")
    throw new ValueError(`${expected}, got one with a user or password (not shown); name a token in tokenRef`);
  if (/[\p{Cc}\s]/u.test(text)) throw new ValueError(`${expected}, got one with spaces or control characters`);
  return text;
}

function urlSecret(text: string, layers: number): string {
  return webhookUrl(/^https?:/i.test(text.trim()) ? text.trim() : secretText(text, layers));
}

function readWebhook(node: ObjectNode, secrets: SecretStore): WebhookTarget | undefined {
  const urlNode = node.get("url");
  const reference = secrets.follow(node, "urlRef", urlSecret);
  if (!urlNode === !reference)
    node.error(`expected either url or urlRef, got ${urlNode ? "both" : "none"}; urlRef names an entry of a Secret`);
  const url = urlNode ? urlNode.parsed(webhookUrl) : reference?.value;
  const formNode = node.get("form");
  const formName = formNode?.text() ?? "json";
  const form = WEBHOOK_FORMS.find((known) => known === formName);
  if (!form)
    formNode?.error(
      `expected one of ${WEBHOOK_FORMS.join(", ")}, got ${quoted(formName)}${suggestion(formName, WEBHOOK_FORMS)}`,
    );
  const secret = secrets.follow(node, "secretRef", signingSecret);
  const token = secrets.follow(node, "tokenRef", headerSecret);
  if (secret && form !== undefined && form !== "json")
    node.warn(`secretRef signs the form json; ${form} is signed too, but its receivers do not look at that`);
  if (url !== undefined && form === "ntfy" && !/^\/(?:.*\/)?[\w-]{1,64}$/.test(new URL(url).pathname))
    node.error("expected a URL that ends with the topic, such as https://ntfy.sh/backups, got another (not shown)");
  if (url !== undefined && new URL(url).protocol === "http:" && (secret || token))
    node.warn("the URL is http, so that what it sends can be read on the way; use https");
  node.warnUnknown();
  return url === undefined || form === undefined
    ? undefined
    : { type: "webhook", url, form, secret: secret?.value, token: token?.value };
}

function readMail(node: ObjectNode, secrets: SecretStore): MailTarget | undefined {
  const server = node.require("server", "the URL of an SMTP server, such as smtps://mail.example.org")?.parsed(smtpUrl);
  const userNode = node.get("user");
  const user = userNode?.parsed(headerText);
  const password = secrets.follow(node, "passwordRef", headerSecret);
  if (!userNode !== !password) node.error("expected user and passwordRef together, got one of them; add the other");
  const from = node.require("from", "the sender's address")?.parsed(mailAddress);
  const toNode = node.require("to", "a list of addresses");
  const to = (toNode?.items() ?? []).flatMap((item: ValueNode) => item.parsed(mailAddress) ?? []);
  if (toNode && (to.length === 0 || to.length > MOST_RECEIVERS))
    toNode.error(`expected 1 to ${MOST_RECEIVERS} addresses, got ${to.length}`);
  node.warnUnknown();
  if (!server || from === undefined) return undefined;
  const credentials = user === undefined || !password?.value ? undefined : { user, password: password.value };
  return { type: "mail", ...server, credentials, from, to };
}

function smtpUrl(text: string): Pick<MailTarget, "host" | "port" | "implicitTls"> {
  const expected = "expected a URL such as smtps://mail.example.org or smtp://mail.example.org:587";
  const url = text.length <= MOST_TEXT && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^smtps?:$/.test(url.protocol) || url.hostname === "" || !/^\/?$/.test(url.pathname))
    throw new ValueError(`${expected}, got something else (not shown)`);
  if (url.username !== "" || url.password !== "")
    throw new ValueError(`${expected}, got one with a user or password (not shown); use user and passwordRef`);
  const implicitTls = url.protocol === "smtps:";
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { host, port: url.port === "" ? (implicitTls ? 465 : 587) : Number(url.port), implicitTls };
}

/** What stands in a header, and in a command of SMTP: nothing may end its line. */
function mailAddress(text: string): string {
  if (
    text.length <= 254 &&
    /^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text)
  )
    return text;
  throw new ValueError(`expected a mail address such as backups@example.org, without a name, got ${quoted(text)}`);
}

function headerText(text: string): string {
  if (text !== "" && text.length <= MOST_TEXT && !/\p{Cc}/u.test(text)) return text;
  throw new ValueError(`expected 1 to ${MOST_TEXT} characters without control characters, got others (not shown)`);
}

function headerSecret(text: string, layers: number): string {
  const secret = secretText(text, layers);
  if (/^[\x21-\x7e]+$/.test(secret) && secret.length <= MOST_TEXT) return secret;
  throw new ValueError(`expected 1 to ${MOST_TEXT} printable ASCII characters, got others (not shown)`);
}

function signingSecret(text: string, layers: number): string {
  const secret = text.trim().startsWith("whsec_") ? text.trim() : secretText(text, layers);
  const { length } = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : secret;
  if (length >= LEAST_SECRET && length <= MOST_TEXT) return secret;
  throw new ValueError(
    `expected a secret of ${LEAST_SECRET} to ${MOST_TEXT} characters, got ${length}; make a longer one`,
  );
}

/** A text without a form of its own: in `data` it is base64, as Kubernetes has it, in `stringData` as it is. */
function secretText(text: string, layers: number): string {
  if (layers < 2) return text.replace(/[\r\n]+$/, "");
  const encoded = text.replaceAll(/\s+/g, "");
  const bytes = Buffer.from(encoded, "base64");
  const isBase64 = bytes.length > 0 && bytes.toString("base64").replace(/=+$/, "") === encoded.replace(/=+$/, "");
  const decoded = bytes.toString("utf8");
  if (isBase64 && !decoded.includes("\ufffd")) return decoded.replace(/[\r\n]+$/, "");
  throw new ValueError("expected base64 under data, got something else (not shown); put it under stringData as it is");
}
