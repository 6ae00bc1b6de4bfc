import type { AuditEntry, HashedEntry } from "../../domain/audit-chain.ts";
import { auditHeadKey } from "../../domain/object-keys.ts";
import type { AuditVerifier } from "../ports/audit-key.ts";
import type { BlobLister, BlobReader } from "../ports/blob-store.ts";
import type { Database } from "../ports/database.ts";
import { hexOf, readHead, type StoredHead, storedHeads } from "./heads.ts";
import { type AuditReport, verifyLog } from "./verify-log.ts";

/** Rows read at once. */
const BATCH = 500;

/** Every row in the order of the chain, then those that are not chained. */
export async function* allEntries(database: Database): AsyncGenerator<AuditEntry, void, undefined> {
  // From the lowest of all: places of a thief may be below 1.
  for (let after: bigint | undefined; ; ) {
    const rows = await database.read(async (tx) => await tx.auditLog.chained(after, BATCH));
    yield* rows;
    if (rows.length < BATCH) break;
    after = rows.at(-1)!.place!;
  }
  yield* await database.read(async (tx) => await tx.auditLog.unchained(MOST_UNCHAINED));
}

/** Rows without a place that are looked at; a server chains them within seconds. */
const MOST_UNCHAINED = 100_000;

/** Verifies the audit log of a database against the heads in its store. */
export async function verifyDatabase(
  deps: { readonly database: Database; readonly store: BlobReader & BlobLister; readonly keys: AuditVerifier },
  options: { readonly kept?: StoredHead | undefined } = {},
): Promise<AuditReport> {
  const { database, store, keys } = deps;
  const { id: installation } = await database.installation();
  // The heads first: what is signed meanwhile only adds rows.
  const heads = await Array.fromAsync(storedHeads(store, keys));
  const { now, chain } = await database.read(async (tx) => ({ now: tx.now, chain: await tx.auditLog.chain() }));
  const newest = heads.findLast(({ head }) => head?.installation === installation)?.head?.sequence ?? 0n;
  const isSignedMeanwhile = async () =>
    (await readHead(store, keys, auditHeadKey(chain.headSequence)))?.head?.installation === installation;
  return await verifyLog({
    rows: allEntries(database),
    heads: (async function* () {
      yield* heads;
    })(),
    installation,
    // One that was signed since the list was read is no theft.
    knownSequence: chain.headSequence > newest && (await isSignedMeanwhile()) ? newest : chain.headSequence,
    kept: options.kept,
    now,
  });
}

/** A row as a line of an export has it, as values of JSON. */
export type ExportedEntry = Omit<AuditEntry, "at" | "ordinal" | "place" | "previousHash" | "hash"> & {
  readonly at: string;
  /** Null while it is not chained. */
  readonly place: string | null;
  readonly previousHash: string | null;
  readonly hash: string | null;
};

/** A row as an export has it. */
export function exportedEntry(row: AuditEntry): ExportedEntry {
  const { ordinal: _, at, place, previousHash, hash, ...rest } = row;
  const hex = (bytes: Uint8Array | null) => (bytes === null ? null : hexOf(bytes));
  return {
    place: place === null ? null : String(place),
    at: at.toISOString(),
    ...rest,
    previousHash: hex(previousHash),
    hash: hex(hash),
  };
}

/** Reads a row of an export. @throws Error for what is none */
export function entryOf(value: ExportedEntry): AuditEntry {
  const text = (name: keyof ExportedEntry): string => {
    const found = value[name];
    if (typeof found !== "string") throw new Error(`expected ${name} as a text`);
    return found;
  };
  const bytes = (hex: string | null) => (hex === null ? null : new Uint8Array(Buffer.from(hex, "hex")));
  const hashed: HashedEntry = {
    id: text("id"),
    at: new Date(text("at")),
    kind: text("kind"),
    actor: text("actor"),
    accessKey: text("accessKey"),
    sessionId: text("sessionId"),
    address: text("address"),
    requestId: text("requestId"),
    collectionName: text("collectionName"),
    object: text("object"),
    outcome: text("outcome") as HashedEntry["outcome"],
    reason: text("reason"),
    details: value.details,
  };
  return {
    ...hashed,
    ordinal: 0n,
    place: value.place === null ? null : BigInt(value.place),
    previousHash: bytes(value.previousHash),
    hash: bytes(value.hash),
  };
}
