import { type AuditEntry, entryHash } from "../../domain/audit-chain.ts";
import { type AuditHead, isVoid } from "../../domain/audit-head.ts";
import { hexOf, type StoredHead } from "./heads.ts";

/** What {@link verifyLog} compares. */
export interface VerifyLogInput {
  /** Rows in the order of their places, those without one last. */
  readonly rows: AsyncIterable<AuditEntry>;
  /** Every head in the store. */
  readonly heads: AsyncIterable<StoredHead>;
  readonly installation: string;
  /** The newest head that the database knows of; undefined where there is no database. */
  readonly knownSequence?: bigint | undefined;
  /** A head that was kept elsewhere. */
  readonly kept?: StoredHead | undefined;
  readonly now: Date;
}

/** What a verification found. */
export interface AuditReport {
  /** Every change found; empty when the log is what was signed. */
  readonly problems: readonly string[];
  /** What a person should know, though nothing is wrong. */
  readonly notes: readonly string[];
  /** Rows that the newest head covers, and that are what it signed. */
  readonly rows: number;
  readonly head: AuditHead | undefined;
  /** Rows that no head covers yet: whoever owns the database could change or remove them without being found out. */
  readonly tail: { readonly rows: number; readonly oldestAt: Date | undefined; readonly seconds: number };
}

/** Problems that are listed; one change makes many. */
const MOST_PROBLEMS = 100;

/**
 * Compares the audit log with its heads: finds rows that were altered, removed, inserted or put in another order, heads
 * that were replaced or removed, and a tail that was cut off, up to the newest head.
 */
export async function verifyLog(input: VerifyLogInput): Promise<AuditReport> {
  const problems: string[] = [];
  const notes: string[] = [];
  const problem = (text: string) => void (problems.length < MOST_PROBLEMS && problems.push(text));
  const heads = await goodHeads(input, problem);
  const head = heads.at(-1);
  if (head === undefined) problem("there is no signed head in the store: nothing can be proved");
  const { place: signed, cut, lost } = head ?? { place: 0n, cut: { place: 0n, hash: "" }, lost: [] };
  if (input.knownSequence !== undefined && (head?.sequence ?? 0n) < input.knownSequence)
    problem(
      `head ${input.knownSequence}, which the database knows of, is not in the store: it was removed or replaced`,
    );
  for (const { fromPlace, throughSequence, at } of lost)
    notes.push(
      `an operator accepted at ${at.toISOString()} that the rows from ${fromPlace} on, which heads up to ` +
        `${throughSequence} had signed, are lost, or those heads`,
    );
  const expected = new Map<bigint, { readonly hash: string; readonly sequence: bigint }>();
  const kept = input.kept?.head;
  for (const { place, hash, sequence, ...rest } of kept === undefined ? heads : [...heads, kept]) {
    if (place < cut.place || isVoid({ place, sequence }, lost)) continue;
    const other = expected.get(place);
    if (other !== undefined && other.hash !== hash)
      problem(`heads ${other.sequence} and ${sequence} contradict each other`);
    expected.set(place, { hash, sequence });
    if (rest.cut.place > cut.place) problem(`head ${sequence} says that more was pruned than a later one`);
  }
  if (cut.place > 0n && (expected.get(cut.place)?.hash ?? cut.hash) !== cut.hash)
    problem(`the hash of the last pruned row ${cut.place} is not the signed one`);

  if (cut.place > 0n && head !== undefined && !expected.has(cut.place))
    expected.set(cut.place, { hash: cut.hash, sequence: head.sequence });

  let place = cut.place;
  let hash = cut.place === 0n ? "0".repeat(64) : cut.hash;
  let hasBegun = false;
  let good = 0;
  const tail: AuditEntry[] = [];
  let tailRows = 0;
  for await (const row of input.rows) {
    if (row.place !== null && row.place < 1n) {
      problem(
        `row ${row.place} (${row.kind}, ${row.at.toISOString()}) has a place that no server gives: it was inserted`,
      );
      continue;
    }
    if (row.place === null || row.place > signed) {
      tailRows++;
      if (tail[0] === undefined || row.at < tail[0].at) tail[0] = row;
    }
    if (row.place === null) continue;
    // What an interrupted pruning left leads to the last row that goes, and its hash is signed.
    if (!hasBegun && row.place <= cut.place) {
      place = row.place - 1n;
      hash = row.previousHash === null ? "" : hexOf(row.previousHash);
    }
    hasBegun = true;
    if (row.place !== place + 1n) {
      problem(
        row.place > place + 1n
          ? `${span(place + 1n, row.place - 1n)} missing`
          : `row ${row.place} is there twice, or out of order`,
      );
      hash = row.previousHash === null ? "" : hexOf(row.previousHash);
    }
    ({ place } = row);
    const previous = row.previousHash === null ? "" : hexOf(row.previousHash);
    if (previous !== hash) problem(`row ${place} does not follow the row before it: rows were inserted or exchanged`);
    const computed = hexOf(entryHash(place, Buffer.from(hash, "hex"), row));
    const own = row.hash === null ? "" : hexOf(row.hash);
    if (computed !== own) problem(`row ${place} (${row.kind}, ${row.at.toISOString()}) was altered`);
    const at = expected.get(place);
    if (at !== undefined && at.hash !== own)
      problem(
        `row ${place} is not the one that head ${at.sequence} signed: it, or one before it, was altered and hashed again`,
      );
    if (place > cut.place && place <= signed && computed === own) good++;
    // From what is stored, so that one altered row is one problem.
    hash = own;
  }
  if (place < signed)
    problem(`${span(place + 1n, signed)} missing at the end, which head ${head!.sequence} had signed`);
  if (input.kept?.problem !== undefined) problem(`the head that was kept elsewhere: ${input.kept.problem}`);
  else if (kept !== undefined && (head === undefined || head.sequence < kept.sequence))
    problem(`the store has no head as new as ${kept.sequence}, which was kept elsewhere: newer ones were removed`);
  const seconds = tailRows === 0 || head === undefined ? 0 : (input.now.getTime() - head.at.getTime()) / 1000;
  return {
    problems,
    notes,
    rows: good,
    head,
    tail: { rows: tailRows, oldestAt: tail[0]?.at, seconds: Math.max(0, Math.round(seconds)) },
  };
}

/** The heads that are signed and of this installation, by sequence number. */
async function goodHeads(input: VerifyLogInput, problem: (text: string) => void): Promise<AuditHead[]> {
  const heads: AuditHead[] = [];
  for await (const { key, head, problem: why } of input.heads) {
    if (head === undefined) problem(`${key}: ${why}`);
    else if (head.installation !== input.installation) problem(`${key}: it is of installation ${head.installation}`);
    else heads.push(head);
  }
  return heads.sort((a, b) => (a.sequence < b.sequence ? -1 : 1));
}

function span(from: bigint, to: bigint): string {
  return from === to ? `row ${from} is` : `rows ${from} to ${to} are`;
}
