import { entryHash, FIRST_HASH } from "../../domain/audit-chain.ts";
import { type AcceptedLoss, type AuditHead, type ChainPoint, headText, parseHead } from "../../domain/audit-head.ts";
import { AUDIT_HEADS, auditHeadKey, meaningOf } from "../../domain/object-keys.ts";
import type { AuditSigner, AuditVerifier } from "../ports/audit-key.ts";
import type { AuditChainRow } from "../ports/audit-log.ts";
import { type BlobLister, type BlobReader, type BlobStore, BlobStoreError } from "../ports/blob-store.ts";
import type { Database } from "../ports/database.ts";

/** What heads are written with. */
export interface HeadDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly signer: AuditSigner;
  /**
   * The newest head that this process has seen in the store, where it writes many: the list of all is read once, and
   * again when the database knows less.
   */
  readonly seen?: { sequence: bigint | undefined };
}

/**
 * The audit log contradicts a head that was signed: rows were altered, removed or lost. Nothing is signed until an
 * operator has looked.
 */
export class AuditContradictionError extends Error {
  override name = "AuditContradictionError";
}

/** A head in the store; `problem` says why it counts for nothing. */
export type StoredHead =
  | { readonly key: string; readonly head: AuditHead; readonly problem?: undefined }
  | { readonly key: string; readonly head?: undefined; readonly problem: string };

/** Most bytes of the object of a head. */
const MAX_HEAD_BYTES = 64 * 1024;

/** Rows read at once. */
const BATCH = 500;

/** 32 zero bytes in hexadecimal: what is before the first row. */
export const BEGINNING: ChainPoint = { place: 0n, hash: Buffer.from(FIRST_HASH).toString("hex") };

/** Every head in the store, by sequence number. */
export async function* storedHeads(
  store: BlobReader & BlobLister,
  keys: AuditVerifier,
): AsyncGenerator<StoredHead, void, undefined> {
  for await (const { key } of store.list(AUDIT_HEADS)) {
    const head = await readHead(store, keys, key);
    if (head !== undefined) yield head;
  }
}

/** One head; undefined when there is none under this key. */
export async function readHead(
  store: Pick<BlobReader, "get" | "stat">,
  keys: AuditVerifier,
  key: string,
): Promise<StoredHead | undefined> {
  // What somebody put there must keep nobody from reading the others.
  if (meaningOf(key).kind !== "audit") return { key, problem: "its name is not that of a head; somebody put it there" };
  try {
    const bytes = await store.get(key, MAX_HEAD_BYTES);
    return bytes === undefined ? undefined : checkedHead(key, new TextDecoder().decode(bytes), keys);
  } catch (error) {
    if (!(error instanceof BlobStoreError)) throw error;
    const size = (await store.stat(key))?.size ?? 0n;
    if (size <= BigInt(MAX_HEAD_BYTES)) throw error;
    return { key, problem: `it has ${size} bytes, more than a head can have` };
  }
}

/** The head that a text holds: a line of JSON and a line with its signature. */
export function checkedHead(key: string, text: string, keys: AuditVerifier): StoredHead {
  const [line = "", signature = ""] = text.split("\n");
  try {
    const head = parseHead(line);
    if (!keys.verify(head.key, line, signature)) return { key, problem: "it is not signed by the audit key" };
    if (key.startsWith(AUDIT_HEADS) && key !== auditHeadKey(head.sequence))
      return { key, problem: `it is head ${head.sequence}, which somebody put there` };
    return { key, head };
  } catch (error) {
    return { key, problem: `it cannot be read: ${(error as Error).message}` };
  }
}

/**
 * The heads in the store that are signed and of this installation, by sequence number: one key may sign for several
 * installations, whose heads a thief could exchange.
 */
export async function ownHeads(
  store: BlobReader & BlobLister,
  keys: AuditVerifier,
  installation: string,
): Promise<AuditHead[]> {
  const heads: AuditHead[] = [];
  for await (const { head } of storedHeads(store, keys)) if (head?.installation === installation) heads.push(head);
  return heads.sort((a, b) => (a.sequence < b.sequence ? -1 : 1));
}

/** The newest of {@link ownHeads}, without reading the others. */
async function newestHead(
  store: BlobReader & BlobLister,
  keys: AuditVerifier,
  installation: string,
): Promise<AuditHead | undefined> {
  const names: string[] = [];
  for await (const { key } of store.list(AUDIT_HEADS)) names.push(key);
  for (const key of names.sort().reverse()) {
    const found = await readHead(store, keys, key);
    if (found?.head?.installation === installation) return found.head;
  }
  return undefined;
}

/** Says that the newest head is not in the store, where the database knows of a newer one. */
export function missingHead(newest: Pick<AuditHead, "sequence"> | undefined, headSequence: bigint): string | undefined {
  const found = newest?.sequence ?? 0n;
  if (found >= headSequence) return undefined;
  const there = newest === undefined ? "which has none" : `whose newest is ${found}`;
  return `head ${headSequence} is missing in the store, ${there}`;
}

/** What a head says beside where the chain ends. */
export interface HeadChange {
  /** The last pruned row; as before when left out. */
  readonly cut?: ChainPoint;
  /** A loss that an operator accepts. */
  readonly loss?: Omit<AcceptedLoss, "at">;
  /** Sign although nothing was chained since the last head. */
  readonly always?: boolean;
}

/**
 * Signs where the chain ends, and writes it into the store. Before, the rows since the last head are compared with
 * their hashes, and the chain with that head: what contradicts it is not signed. A sequence number is used once, so a
 * server that is late replaces nothing.
 * @returns undefined when there was nothing new to sign.
 * @throws AuditContradictionError
 */
export async function writeHead(deps: HeadDeps, change: HeadChange = {}): Promise<AuditHead | undefined> {
  const { database, store, signer } = deps;
  const state = await database.read(async (tx) => await tx.auditLog.chain());
  const { id: installation } = await database.installation();
  const last = await lastHead(deps, installation, state.headSequence);
  const missing = missingHead(last, state.headSequence);
  if (change.loss === undefined && missing !== undefined) throw contradiction(missing);
  const base = change.loss === undefined ? last : undefined;
  // Only the first head of all signs a log as it is found.
  const cut = change.cut ?? base?.cut ?? (await beginning(database, state));
  const from = base ?? { ...cut, cut };
  const start = from.place >= from.cut.place ? from : from.cut;
  // What an operator accepts is signed as it is; `verify` goes on to say what is wrong with it.
  const end =
    change.loss === undefined
      ? await checkedEnd(database, start.place === 0n ? BEGINNING : start, from.cut.place)
      : { place: state.place, hash: hexOf(state.hash) };
  const isNew = end.place > (last ?? cut).place;
  if (!isNew && change.always !== true && change.cut === undefined && change.loss === undefined) return undefined;
  const { sequence, at } = await database.transaction(async (tx) => {
    const { reservedSequence } = await tx.auditLog.lockChain();
    const highest = [reservedSequence, last?.sequence ?? 0n, change.loss?.throughSequence ?? 0n];
    const next = highest.reduce((a, b) => (a > b ? a : b)) + 1n;
    await tx.auditLog.setChain({ reservedSequence: next });
    return { sequence: next, at: tx.now };
  });
  const head: AuditHead = {
    installation,
    sequence,
    ...end,
    at,
    cut,
    lost: [...(last?.lost ?? []), ...(change.loss === undefined ? [] : [{ ...change.loss, at }])],
    key: signer.key,
  };
  const text = headText(head);
  await store.put(auditHeadKey(sequence), new TextEncoder().encode(`${text}\n${signer.sign(text)}\n`));
  await database.transaction(async (tx) => {
    const { headSequence } = await tx.auditLog.lockChain();
    if (headSequence < sequence) await tx.auditLog.setChain({ headSequence: sequence, headPlace: end.place });
  });
  return head;
}

/** Where the rows of a log begin: before the first that is there. What was before that was pruned, or is lost. */
export async function beginning(database: Database, state: Pick<AuditChainRow, "place" | "hash">): Promise<ChainPoint> {
  const [first] = await database.read(async (tx) => await tx.auditLog.chained(0n, 1));
  if (first === undefined) return { place: state.place, hash: hexOf(state.hash) };
  return { place: first.place! - 1n, hash: hexOf(first.previousHash ?? FIRST_HASH) };
}

/** The newest head, without reading the whole list where the database says which it is. */
async function lastHead(
  { store, signer, seen }: HeadDeps,
  installation: string,
  sequence: bigint,
): Promise<AuditHead | undefined> {
  const isKnown = seen?.sequence !== undefined && seen.sequence <= sequence && sequence > 0n;
  const known = isKnown ? await readHead(store, signer, auditHeadKey(sequence)) : undefined;
  const isOwn = known?.head?.installation === installation;
  const last = isOwn ? known?.head : await newestHead(store, signer, installation);
  if (seen !== undefined) seen.sequence = last?.sequence ?? 0n;
  return last;
}

/**
 * Follows the chain from a row that was signed to its end.
 * @throws AuditContradictionError when that row is not what was signed, or a later one does not have its hash.
 */
async function checkedEnd(database: Database, from: ChainPoint, cutPlace: bigint): Promise<ChainPoint> {
  // The last pruned row is gone; those after it are hashed with its hash.
  if (from.place > cutPlace) {
    const row = await database.read(async (tx) => await tx.auditLog.at(from.place));
    if (row?.hash == null || hexOf(row.hash) !== from.hash)
      throw contradiction(`row ${from.place} is not what was signed`);
  }
  let { place, hash } = from;
  for (;;) {
    const rows = await database.read(async (tx) => await tx.auditLog.chained(place, BATCH));
    for (const row of rows) {
      const expected = hexOf(entryHash(place + 1n, Buffer.from(hash, "hex"), row));
      if (row.place !== place + 1n || row.hash === null || hexOf(row.hash) !== expected)
        throw contradiction(`row ${place + 1n} is not what was chained`);
      place += 1n;
      hash = expected;
    }
    if (rows.length < BATCH) return { place, hash };
  }
}

/** The error that says what contradicts a head, and what to do. */
export function contradiction(why: string): AuditContradictionError {
  return new AuditContradictionError(
    `the audit log was changed or lost: ${why}. No further head is signed. Look with \`strongroom audit verify\`; ` +
      "after a copy of database or storage was put back, or `recover`, `strongroom audit accept-loss` goes on",
  );
}

/** Bytes in hexadecimal. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
