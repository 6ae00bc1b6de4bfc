import { HIDDEN, OTHER, PASSPHRASE, type Recipients } from "@strongroom/framing";

/** What a version is encrypted to; null for not known. */
export interface Encrypted {
  readonly number: bigint;
  readonly recipients: Recipients | null;
}

/** What one name opens. */
export interface KeyUse {
  readonly recipient: string;
  /** Versions it opens. */
  readonly versions: number;
  /** Of them, those that nothing else opens. */
  readonly alone: number;
  /** The highest number of those it opens. */
  readonly newest: bigint;
}

/** Which keys open which versions, by name. */
export interface KeyInventory {
  readonly keys: readonly KeyUse[];
  /** Versions of which it is not known. */
  readonly unknown: readonly bigint[];
  /** Versions that open with lost keys only. */
  readonly lost: readonly bigint[];
  /** Versions that beside lost keys open only with keys that the header does not name. */
  readonly uncertain: readonly bigint[];
}

/**
 * The name of a recipient, from that name, or from an OpenPGP key id or fingerprint of any case and grouping; undefined
 * for anything else.
 */
export function recipientName(text: string): string | undefined {
  if (/^(openpgp|age):[\w+/:.-]+$/.test(text) || text === OTHER) return text;
  const digits = text.replace(/^0x/i, "").replaceAll(/[\s:]/g, "").toLowerCase();
  if (!/^[0-9a-f]+$/.test(digits)) return undefined;
  // The key id in a fingerprint: the last 8 octets of version 4, the first 8 of versions 5 and 6.
  if (digits.length === 16) return `openpgp:${digits}`;
  if (digits.length === 40) return `openpgp:${digits.slice(-16)}`;
  return digits.length === 64 ? `openpgp:${digits.slice(0, 16)}` : undefined;
}

/** Whether a name says which key it is, or that it is a passphrase; others stand for any key of their kind. */
export function isNamed(recipient: string): boolean {
  if (recipient === PASSPHRASE || recipient === "age:scrypt") return true;
  if (recipient === HIDDEN || recipient === OTHER) return false;
  return recipient.startsWith("openpgp:") || recipient.split(":").length > 2;
}

/**
 * Which keys open which versions, and which would be lost with some of them.
 * @param versions highest number first.
 * @param lost names of recipients.
 */
export function keyInventory(versions: readonly Encrypted[], lost: readonly string[]): KeyInventory {
  const uses = new Map<string, { versions: number; alone: number; newest: bigint }>();
  const sets = { unknown: [] as bigint[], lost: [] as bigint[], uncertain: [] as bigint[] };
  for (const { number, recipients } of versions) {
    if (recipients === null) {
      sets.unknown.push(number);
      continue;
    }
    const names = Object.keys(recipients);
    for (const name of names) {
      const use = uses.get(name) ?? { versions: 0, alone: 0, newest: number };
      use.versions++;
      if (names.length === 1 && recipients[name] === 1) use.alone++;
      uses.set(name, use);
    }
    const left = names.filter((name) => !lost.includes(name));
    if (left.length === names.length) continue;
    if (left.length === 0) sets.lost.push(number);
    else if (!left.some(isNamed)) sets.uncertain.push(number);
  }
  const keys = [...uses].map(([recipient, use]) => ({ recipient, ...use }));
  return { keys: keys.sort((a, b) => (a.recipient < b.recipient ? -1 : 1)), ...sets };
}
