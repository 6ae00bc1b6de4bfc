/** The end of a pruned or whole chain: a place and the hash of the row there. */
export interface ChainPoint {
  readonly place: bigint;
  /** 64 hexadecimal digits. */
  readonly hash: string;
}

/** Chained rows that are lost, as an operator accepted: heads up to a sequence number sign rows that are gone. */
export interface AcceptedLoss {
  /** The first place that means other rows now. */
  readonly fromPlace: bigint;
  /** Heads up to this number that sign it, or a place after it, count no more. */
  readonly throughSequence: bigint;
  readonly at: Date;
}

/** A signed head: what the chain was at a moment. Everything in it is signed. */
export interface AuditHead extends ChainPoint {
  readonly installation: string;
  /** Counts up, with gaps; part of the key of its object. */
  readonly sequence: bigint;
  /** When it was signed, by the database's clock. */
  readonly at: Date;
  /** The last row that was pruned; rows after it are there. */
  readonly cut: ChainPoint;
  readonly lost: readonly AcceptedLoss[];
  /** Names the key that signed it: SHA-256 of its public key (SPKI, DER) in hexadecimal. */
  readonly key: string;
}

const FORMAT = "strongroom-audit-head-1";

/** The text that is signed: one line of JSON. */
export function headText(head: AuditHead): string {
  const point = ({ place, hash }: ChainPoint) => ({ place: String(place), hash });
  return JSON.stringify({
    format: FORMAT,
    installation: head.installation,
    sequence: String(head.sequence),
    ...point(head),
    at: head.at.toISOString(),
    cut: point(head.cut),
    lost: head.lost.map(({ fromPlace, throughSequence, at }) => ({
      fromPlace: String(fromPlace),
      throughSequence: String(throughSequence),
      at: at.toISOString(),
    })),
    key: head.key,
  });
}

/** Reads {@link headText}. @throws Error for a text that is none */
export function parseHead(text: string): AuditHead {
  const value = JSON.parse(text) as Record<string, unknown>;
  if (value.format !== FORMAT) throw new Error(`expected format ${FORMAT}, got ${String(value.format).slice(0, 40)}`);
  const point = (of: Record<string, unknown>): ChainPoint => {
    const hash = String(of.hash);
    if (!/^[0-9a-f]{64}$/.test(hash)) throw new Error("expected a hash of 64 hexadecimal digits");
    return { place: count(of.place), hash };
  };
  return {
    installation: String(value.installation),
    sequence: count(value.sequence),
    ...point(value),
    at: time(value.at),
    cut: point(value.cut as Record<string, unknown>),
    lost: (value.lost as Record<string, unknown>[]).map((one) => ({
      fromPlace: count(one.fromPlace),
      throughSequence: count(one.throughSequence),
      at: time(one.at),
    })),
    key: String(value.key),
  };
}

/** Whether an accepted loss took what a head signs. */
export function isVoid(head: Pick<AuditHead, "sequence" | "place">, lost: readonly AcceptedLoss[]): boolean {
  return lost.some(({ fromPlace, throughSequence }) => head.sequence <= throughSequence && head.place >= fromPlace);
}

function count(value: unknown): bigint {
  if (typeof value !== "string" || !/^\d{1,19}$/.test(value)) throw new Error("expected a number as a text");
  return BigInt(value);
}

function time(value: unknown): Date {
  const at = new Date(String(value));
  if (Number.isNaN(at.getTime())) throw new Error("expected a time");
  return at;
}
