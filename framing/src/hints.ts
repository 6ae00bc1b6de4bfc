import { showByte } from "./ascii.ts";
import type { FramingViolation } from "./errors.ts";
import { armorAfterText, recognize } from "./recognize.ts";

/** What to do about a stream that is not encrypted; the end of many messages. */
export const ENCRYPT_HINT =
  "Encrypt the dump before it is uploaded, for example with `gpg --encrypt --recipient KEY`, `age -r " +
  "RECIPIENT` or `strongroom backup`";

/** OpenPGP packets (RFC 9580 section 5) that begin messages which are not encrypted. */
const PACKETS: ReadonlyMap<number, string> = new Map([
  [2, "a signature"],
  [4, "a signed message"],
  [5, "a secret key"],
  [6, "a public key"],
  [7, "a secret key"],
  [8, "a compressed message"],
  [11, "a literal message"],
  [14, "a public key"],
]);

/** Sentence for a stream whose first byte starts neither format. */
export function describeStart(value: number): string {
  return `Expected an OpenPGP message or an age file, got byte ${showByte(value)}. ${ENCRYPT_HINT}`;
}

/** Sentence for a stream that begins with an OpenPGP packet which no encrypted message begins with. */
export function describePacketStart(tag: number, value: number): string {
  const packet = PACKETS.get(tag);
  if (packet === undefined) return describeStart(value);
  return (
    `Expected an encrypted OpenPGP message, got the beginning of ${packet} (packet ${tag}), which is not ` +
    `encrypted. ${ENCRYPT_HINT}`
  );
}

/**
 * Sentence for a refused stream whose first bytes are at hand: what it seems to be, and what to do.
 * @param head the first bytes of the stream, as many as there are
 * @returns undefined where they show nothing
 */
export function describeForeign(head: Uint8Array, violation: FramingViolation): string | undefined {
  const refusedAtOnce = violation === "not-ciphertext";
  const before = refusedAtOnce ? armorAfterText(head) : undefined;
  if (before !== undefined) {
    return (
      `Expected an armored message that begins with its line of dashes, got ${before} bytes before that line. ` +
      "Upload the message alone, from its first line on"
    );
  }
  if (isAccepted(head)) return undefined;
  const found = recognize(head, refusedAtOnce);
  if (found === undefined) return undefined;
  const got = `Expected an OpenPGP message or an age file, got ${found.what}`;
  if (!found.encrypted) return `${got}. ${ENCRYPT_HINT}`;
  return (
    `${got}: it may be encrypted, but this kind is not accepted. Encrypt the dump itself with \`gpg\`, \`age\` ` +
    "or `strongroom backup`, or this file once more"
  );
}

/** Whether a stream begins as one that is accepted, and went wrong later: its own error says more. */
function isAccepted(head: Uint8Array): boolean {
  const text = String.fromCharCode(...head.subarray(0, 1_100)).trimStart();
  return /^(-----BEGIN PGP MESSAGE-----|-----BEGIN AGE ENCRYPTED FILE-----|age-encryption\.org\/v1\n)/.test(text);
}
