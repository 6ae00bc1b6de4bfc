import { createHash } from "node:crypto";
import type { AuditEvent } from "../../domain/audit.ts";
import type { Configuration } from "../../domain/configuration.ts";
import { CONFIGURATION_KINDS } from "../../domain/configuration-changes.ts";
import type { Database } from "../ports/database.ts";

/** What is never written as it is, by the name of its field. Who knows the URL of a webhook may call it. */
const SECRET = /pass|secret|hash|token|sha256|signing|url/i;

/** The same, of fields within a list. */
const SECRET_WITHIN = /"[^"]*(pass|secret|hash|token|sha256|signing)[^"]*":/i;

/** The longest value that is kept whole, in characters. */
const LONGEST = 200;

/**
 * Writes what differs between a configuration and what the audit log knows: once, whichever server notices first, and
 * also what was changed while none ran. The first configuration of all is taken without events.
 * @returns how many objects differed.
 */
export async function noteConfiguration(database: Database, configuration: Configuration): Promise<number> {
  const now = new Map<string, Readonly<Record<string, string>>>();
  for (const [kind, part] of CONFIGURATION_KINDS)
    for (const [name, spec] of (configuration[part] ?? new Map()) as ReadonlyMap<string, object>)
      now.set(`${kind}/${name}`, fieldsOf(spec));
  return await database.transaction(async (tx) => {
    await tx.auditLog.lockChain();
    const before = await tx.auditLog.configuration();
    const changed = [...new Set([...before.keys(), ...now.keys()])]
      .sort()
      .filter((object) => differs(before.get(object), now.get(object)));
    const isFirst = before.size === 0;
    for (const object of changed) {
      const [was, is] = [before.get(object), now.get(object)];
      await tx.auditLog.setConfiguration(object, is);
      if (!isFirst) await tx.audit(changeOf(object, was, is));
    }
    if (isFirst && changed.length > 0)
      await tx.audit({
        kind: "audit.began",
        actor: "server",
        collectionName: "",
        details: { objects: String(changed.length) },
      });
    return changed.length;
  });
}

type Fields = Readonly<Record<string, string>>;

function differs(a: Fields | undefined, b: Fields | undefined): boolean {
  if (a === undefined || b === undefined) return a !== b;
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].some((name) => a[name] !== b[name]);
}

function changeOf(object: string, was: Fields | undefined, is: Fields | undefined): AuditEvent {
  const details: Record<string, string> = {};
  for (const name of new Set([...Object.keys(was ?? {}), ...Object.keys(is ?? {})])) {
    const [a, b] = [was?.[name], is?.[name]];
    if (a === b) continue;
    const isSecret = SECRET.test(name);
    if (was === undefined) details[name] = isSecret ? "(hidden)" : b!;
    else if (is === undefined) details[name] = isSecret ? "(hidden)" : a!;
    else details[name] = isSecret ? "(changed)" : `${a ?? "(none)"} -> ${b ?? "(none)"}`;
  }
  return {
    kind: "configuration.changed",
    actor: "server",
    collectionName: object.startsWith("BackupCollection/") ? object.slice("BackupCollection/".length) : "",
    object,
    reason: was === undefined ? "added" : is === undefined ? "removed" : "changed",
    details,
  };
}

/** The fields of an object, by their path, without secrets: of those a mark that changes when they do. */
function fieldsOf(value: object, path = ""): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const [name, field] of Object.entries(value)) {
    if (field === undefined) continue;
    const at = path === "" ? name : `${path}.${name}`;
    if (Array.isArray(field) && field.some((item) => typeof (item as { name?: unknown } | null)?.name === "string"))
      for (const item of field as { name: string }[]) Object.assign(fields, fieldsOf(item, `${at}.${item.name}`));
    else if (typeof field === "object" && field !== null && !Array.isArray(field))
      Object.assign(fields, fieldsOf(field as object, at));
    else fields[at] = shown(at, field);
  }
  return fields;
}

function shown(at: string, value: unknown): string {
  const text = JSON.stringify(value, (_, item: unknown) => (typeof item === "bigint" ? String(item) : item)) ?? "";
  const digest = () => createHash("sha256").update(text).digest("hex");
  // Too short to try guesses on; hashes of passwords have salt besides.
  if (SECRET.test(at) || SECRET_WITHIN.test(text)) return `(hidden, ${digest().slice(0, 4)})`;
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST)}… (${digest().slice(0, 8)})`;
}
