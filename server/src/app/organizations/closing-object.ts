import { setTimeout as sleep } from "node:timers/promises";
import { CLOSINGS_PREFIX, closingKey, meaningOf } from "../../domain/object-keys.ts";
import type { BlobLister, BlobReader, BlobStore } from "../ports/blob-store.ts";
import type { Database, OrganizationRow, PurgeRecord } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { MANIFEST_WAIT_MS } from "../versions/manifest-writer.ts";

/** How an organization was ended, as an object beside the versions says it: it survives the loss of the database. */
export type StoredClosing = Pick<OrganizationRow, "name" | "closedAt" | "closedBy" | "closedReason" | "purge">;

/** What writing it needs. */
export interface ClosingDeps {
  readonly database: Database;
  readonly store: Pick<BlobStore, "put">;
  readonly log: Log;
}

const FORMAT = "strongroom-organization-1";

/** Most collections that the record of a purge names. */
export const MAX_NAMED = 1000;

/** The most versions or bytes that a database counts. */
const MAX_COUNT = 2n ** 63n - 1n;

/** Most bytes of the object. */
const MAX_CLOSING_BYTES = 512 * 1024;

/** An object among closings that cannot be used. */
export interface UnusableClosing {
  readonly key: string;
  readonly why: string;
}

/** Writes what the row says now. Of two that write at once, the one whose object stays has read the newer row. */
export async function writeClosing({ database, store }: Omit<ClosingDeps, "log">, name: string): Promise<void> {
  const read = async () => {
    const row = await database.read(async (tx) => await tx.organizations.find(name));
    return row === undefined ? undefined : closingText(row);
  };
  for (let text = await read(); text !== undefined; ) {
    await store.put(closingKey(name), new TextEncoder().encode(text));
    const now = await read();
    if (now === text) return;
    text = now;
  }
}

/**
 * Writes it within the call that changed it, after the change is committed. A store that is down does not undo the
 * change; the sweeper writes what is closed.
 */
export async function settleClosing(deps: ClosingDeps, name: string, waitMs = MANIFEST_WAIT_MS): Promise<void> {
  const waiting = new AbortController();
  const late = sleep(waitMs, undefined, { signal: waiting.signal }).then(() => {
    throw new Error(`the store took longer than ${waitMs} ms`);
  });
  late.catch(() => {});
  const written = writeClosing(deps, name);
  written.catch(() => {});
  try {
    await Promise.race([written, late]);
  } catch (error) {
    const message =
      "whether an organization is closed could not be written into the storage; the sweeper writes what is";
    deps.log.warn({ organization: name, err: error }, message);
  } finally {
    waiting.abort();
  }
}

/**
 * Names of closed organizations of which the storage says something else, or nothing can be read. Open ones are left: of
 * a database that was rolled back the storage may know better.
 */
export async function* staleClosings(
  { database, store }: { readonly database: Database; readonly store: Pick<BlobReader, "get"> },
  limit = 500,
): AsyncGenerator<string, void, undefined> {
  for (let after: string | undefined; ; ) {
    const page = { after, limit };
    const rows = await database.read(async (tx) => await tx.organizations.list(page));
    for (const row of rows) {
      if (row.closedAt === null) continue;
      const bytes = await store.get(closingKey(row.name), MAX_CLOSING_BYTES).catch(() => undefined);
      if (bytes === undefined || new TextDecoder().decode(bytes) !== closingText(row)) yield row.name;
    }
    if (rows.length < limit) return;
    after = rows.at(-1)!.name;
  }
}

/** Every closing in a store, and what is there and is none. */
export async function* storedClosings(
  store: BlobReader & BlobLister,
): AsyncGenerator<StoredClosing | UnusableClosing, void, undefined> {
  for await (const { key, size } of store.list(CLOSINGS_PREFIX)) {
    if (meaningOf(key).kind !== "organization") continue;
    const bytes = size > BigInt(MAX_CLOSING_BYTES) ? undefined : await store.get(key, MAX_CLOSING_BYTES);
    try {
      if (bytes === undefined) throw new Error(`it has ${size} bytes`);
      const closing = closingOf(new TextDecoder().decode(bytes));
      if (closingKey(closing.name) !== key) throw new Error("it is another organization's");
      yield closing;
    } catch (error) {
      yield { key, why: `the closing of an organization cannot be used: ${(error as Error).message}` };
    }
  }
}

function closingText({ name, closedAt, closedBy, closedReason, purge }: StoredClosing): string {
  return JSON.stringify({
    format: FORMAT,
    name,
    closedAt: closedAt?.toISOString() ?? null,
    closedBy,
    closedReason,
    // The database keeps its fields in another order.
    purge: purge === null ? null : purgeOf(purge),
  });
}

function closingOf(text: string): StoredClosing {
  const value = JSON.parse(text) as Record<string, unknown>;
  if (value.format !== FORMAT) throw new Error(`expected format ${FORMAT}`);
  const closedAt = value.closedAt === null ? null : new Date(timeOf(value.closedAt, "closedAt"));
  const purge = value.purge === null ? null : checked(purgeOf(value.purge as PurgeRecord));
  const [closedBy, closedReason] = [textOf(value.closedBy, "closedBy"), textOf(value.closedReason, "closedReason")];
  return { name: textOf(value.name, "name"), closedAt, closedBy, closedReason, purge };
}

function purgeOf(value: PurgeRecord): PurgeRecord {
  const { at, by, versions, bytes, collections } = value;
  if (!Array.isArray(collections)) throw new Error("expected collections as a list");
  return {
    at: textOf(at, "at"),
    by: textOf(by, "by"),
    versions: textOf(versions, "versions"),
    bytes: textOf(bytes, "bytes"),
    collections: collections.map((name) => textOf(name, "collections")),
  };
}

/** What is read is shown and compared as times and numbers, by the database too. */
function checked(record: PurgeRecord): PurgeRecord {
  timeOf(record.at, "at");
  for (const name of ["versions", "bytes"] as const)
    if (!/^\d{1,19}$/.test(record[name]) || BigInt(record[name]) > MAX_COUNT)
      throw new Error(`expected ${name} as a decimal number up to ${MAX_COUNT}`);
  if (record.collections.length > MAX_NAMED) throw new Error(`expected at most ${MAX_NAMED} collections`);
  return record;
}

/** A time as it is written here: one text for each, in a year that databases know. */
function timeOf(value: unknown, name: string): string {
  const text = textOf(value, name);
  const time = new Date(text);
  const known = /^(?!0000)\d{4}-/.test(text) && !Number.isNaN(time.getTime()) && time.toISOString() === text;
  if (!known) throw new Error(`expected ${name} as a time such as 2026-01-31T00:00:00.000Z`);
  return text;
}

function textOf(value: unknown, name: string): string {
  if (typeof value !== "string" || value.includes("\0") || !value.isWellFormed())
    throw new Error(`expected ${name} as a text`);
  return value;
}
