import type { CiphertextFormat } from "@strongroom/framing";
import { parseSize, quoted, ValueError } from "@strongroom/protocol/sizes";
import type { AccessEntry, CollectionSpec } from "../domain/configuration.ts";
import { isTimezone, parseWindowDuration, parseWindowStart, type UploadWindow } from "../domain/window.ts";
import { ageLines, ageNames, isAge } from "./age-recipients.ts";
import type { CollectionDefaults } from "./collection-defaults.ts";
import { readGuards } from "./collection-guards.ts";
import type { ConfigObject } from "./document.ts";
import { suggestion } from "./names.ts";
import type { ObjectNode, ValueNode } from "./node.ts";
import { unwrapBase64 } from "./password-hash.ts";
import { parseRecipient } from "./recipients.ts";
import { readRoles } from "./roles.ts";
import { readLimits, readRotation } from "./rotation.ts";
import type { SecretStore } from "./secrets.ts";
import type { NameReference } from "./user.ts";

/** A collection as it was read. */
export interface ReadCollection {
  readonly collection: CollectionSpec;
  readonly organization: NameReference | undefined;
  /** Users that the access list names. */
  readonly users: readonly NameReference[];
}

const MAX_UPLOADS = 1_000;
/** Stands for the number of a version in a file name. */
const VERSION_PLACE = `$\{version}`;
const FORMATS = ["openpgp", "age"] as const satisfies readonly CiphertextFormat[];

function positiveSize(text: string): bigint {
  const size = parseSize(text);
  if (size === 0n) throw new ValueError(`expected a size above zero, got ${quoted(text)}`);
  return size;
}

function timezoneName(name: string): string {
  if (isTimezone(name)) return name;
  throw new ValueError(`expected the IANA name of a time zone such as UTC or Europe/Warsaw, got ${quoted(name)}`);
}

/** The name of a downloaded file: it must stay a name in whatever directory it is written to. */
function fileName(template: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused.
  if (/^[^/\\\u0000-\u001f\u007f"]{1,200}$/.test(template) && !template.startsWith(".")) return template;
  throw new ValueError(
    `expected a file name of 1 to 200 characters without "/", "\\", quotes and control characters, not ` +
      `beginning with ".", got ${quoted(template)}`,
  );
}

function readFilenameTemplate(spec: ObjectNode, name: string): string {
  const node = spec.get("filenameTemplate");
  if (!node) return `${name}-${VERSION_PLACE}`;
  const template = node.parsed(fileName) ?? "";
  if (template !== "" && !template.includes(VERSION_PLACE)) {
    node.warn(`it lacks ${VERSION_PLACE}, so that all versions have the same file name`);
  }
  return template;
}

/** Every upload and every look at health goes through all of them. */
const MOST_WINDOWS = 100;

function readWindows(node: ValueNode | undefined): UploadWindow[] {
  const items = node?.items() ?? [];
  if (items.length > MOST_WINDOWS) node?.error(`expected at most ${MOST_WINDOWS} windows, got ${items.length}`);
  return items.slice(0, MOST_WINDOWS).flatMap((item) => readWindow(item) ?? []);
}

function readWindow(item: ValueNode): UploadWindow | undefined {
  const window = item.object();
  const fromNode = window?.require("from", "a cron expression");
  const from = fromNode?.parsed(parseWindowStart);
  if (from !== undefined && String(fromNode?.textOrNumber()).trim().split(/\s+/).length === 4)
    fromNode?.warn("it has four fields, minute, hour, day and month; the weekday means any: write it as *");
  const durationMs = window?.require("duration", "a duration such as 1h")?.parsed(parseWindowDuration);
  window?.warnUnknown();
  return from === undefined || durationMs === undefined ? undefined : { from, durationMs };
}

function readFormats(spec: ObjectNode): CiphertextFormat[] {
  const node = spec.get("encryption");
  if (!node) return ["openpgp"];
  const items = node.isList() ? (node.items() ?? []) : [node];
  const formats = new Set<CiphertextFormat>();
  for (const item of items) {
    const name = item.text();
    const format = FORMATS.find((known) => known === name);
    if (format) formats.add(format);
    else if (name === "any-of") for (const known of FORMATS) formats.add(known);
    else if (name !== undefined) {
      const near = suggestion(name, [...FORMATS, "any-of"]);
      item.error(`expected openpgp, age, any-of or a list of them, got ${quoted(name)}${near}`);
    }
  }
  if (items.length === 0) node.error("expected openpgp, age or any-of, got an empty list");
  return [...formats];
}

/** Whom dumps may be encrypted to: OpenPGP key ids, and age recipients by their names with how many there are. */
type Pinned = Pick<CollectionSpec, "recipientKeyIds" | "ageRecipients">;

async function readRecipients(spec: ObjectNode, formats: readonly CiphertextFormat[]): Promise<Pinned> {
  const node = spec.get("recipients");
  if (!node) return { recipientKeyIds: undefined };
  const items = node.isList() ? (node.items() ?? []) : [node];
  if (items.length === 0)
    node.error("expected at least one public key, got an empty list; leave the field out for any key");
  const ids = new Set<string>();
  const age = new Set<string>();
  let isWrong = items.length === 0;
  for (const item of items) {
    const text = item.text();
    if (text === undefined) continue;
    try {
      if (isAge(text)) for (const recipient of ageLines(text)) age.add(recipient);
      else for (const id of await parseRecipient(text)) ids.add(id);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      item.error(error.message);
      isWrong = true;
    }
  }
  if (ids.size > 0 && !formats.includes("openpgp")) node.error("got an OpenPGP key, which encryption does not allow");
  else if (age.size > 0 && !formats.includes("age"))
    node.error("got an age recipient, which encryption does not allow");
  // A format without a key of its own would be a way around the pinned ones.
  else if (!isWrong)
    for (const format of formats)
      if ((format === "age" ? age : ids).size === 0)
        node.error(`expected a key of ${format} too, or encryption without ${format}: dumps in it could go to any key`);
  return { recipientKeyIds: [...ids], ...(age.size === 0 ? {} : { ageRecipients: ageNames(age) }) };
}

function parseHealthSecret(text: string, layers: number): string {
  const hex = unwrapBase64(text, layers, (inner) => /^[0-9a-f]{64}$/i.test(inner));
  if (hex) return hex.toLowerCase();
  throw new ValueError(
    "expected the SHA-256 of the health secret in hexadecimal (64 digits), got something else (not shown); " +
      "`echo -n secret | sha256sum` gives it",
  );
}

function readAccessEntry(item: ValueNode, users: NameReference[]): AccessEntry | undefined {
  const entry = item.object();
  if (!entry) return undefined;
  const long = entry.get("userName");
  const short = entry.get("name");
  const typeNode = entry.get("type");
  const type = typeNode ? typeNode.text() : "user";
  if (type !== undefined && type !== "user") {
    typeNode?.error(`expected "user", got ${quoted(type)}; there are no other types`);
  }
  const node = long ?? short ?? entry.require("userName", "the name of a user");
  const userName = node?.text();
  if (long && short && short.text() !== userName)
    short.error("expected either userName or name, got two different ones");
  const roles = readRoles(entry.require("roles", "a list of roles"), "object");
  entry.warnUnknown();
  if (!node || userName === undefined) return undefined;
  users.push({ name: userName, node });
  return { userName, roles };
}

/** Reads an object of kind BackupCollection; what is wrong is reported, and the result then not to be used. */
export async function readCollection(
  { name, root }: ConfigObject,
  secrets: SecretStore,
  defaults: CollectionDefaults,
): Promise<ReadCollection | undefined> {
  const spec = root.require("spec", "a mapping with the collection's limits")?.object();
  root.warnUnknown();
  if (!spec) return undefined;
  defaults.apply(spec, name);
  const { rotation, maxBackupsCount } = readRotation(spec);
  const soft = spec.require("maxOneVersionSize", "the soft limit of one version, such as 1G")?.parsed(positiveSize);
  const hardNode = spec.require("maxCollectionSize", "the hard limit of all versions together, such as 10G");
  const hard = hardNode?.parsed(positiveSize);
  const limits =
    maxBackupsCount !== undefined && rotation && soft !== undefined && hard !== undefined
      ? readLimits(hardNode, { rotation, maxBackupsCount, maxOneVersionSize: soft, maxCollectionSize: hard })
      : undefined;
  const organizationNode = spec.get("organization");
  const organization = organizationNode?.text() ?? "";
  const encryptionFormats = readFormats(spec);
  const users: NameReference[] = [];
  const windows = readWindows(spec.get("windows"));
  const collection: CollectionSpec = {
    name,
    description: spec.get("description")?.text() ?? "",
    organization,
    filenameTemplate: readFilenameTemplate(spec, name),
    maxBackupsCount: maxBackupsCount ?? 1,
    maxOneVersionSize: soft ?? 0n,
    maxCollectionSize: hard ?? 0n,
    maxParallelUploads: spec.get("maxParallelUploads")?.integer(1, MAX_UPLOADS) ?? 1,
    windows,
    timezone: spec.get("timezone")?.parsed(timezoneName) ?? "UTC",
    rotation: rotation ?? { strategy: "fifo" },
    ...readGuards(spec, limits, windows.length > 0),
    encryptionFormats,
    ...(await readRecipients(spec, encryptionFormats)),
    healthSecretSha256: secrets.follow(spec, "healthSecretRef", parseHealthSecret)?.value,
    accessControl: (spec.get("accessControl")?.items() ?? []).flatMap((item) => readAccessEntry(item, users) ?? []),
  };
  spec.warnUnknown();
  const reference =
    organizationNode && organization !== "" ? { name: organization, node: organizationNode } : undefined;
  return { collection, organization: reference, users };
}
