import { minimumBody, PKESK } from "./packets.ts";

/**
 * Most bytes of a public-key session-key packet that come before its algorithm: version, length, key version and a v6
 * fingerprint of 32 octets (RFC 9580 section 5.1.2).
 */
export const RECIPIENT_BYTES = 35;

/** Algorithm octet and the shortest thing that can follow it: an MPI's length of 2 octets. */
const KEY_MATERIAL_MIN = 3;

/** What is known of the recipient field of a public-key session-key packet after its first bytes. */
export interface RecipientField {
  /** Bytes from the start of the body up to the algorithm; where not final, up to the byte that will tell more. */
  readonly length: number;
  /** Whether the length is final. */
  readonly final: boolean;
  /** Least bytes in the packet's body. */
  readonly minimum: number;
}

const VERSION: RecipientField = { length: 1, final: false, minimum: minimumBody(PKESK) };
const V6_SIZE: RecipientField = { length: 2, final: false, minimum: minimumBody(PKESK) };
const V3: RecipientField = finalField(9);
const V6_HIDDEN: RecipientField = finalField(2);
const V6_TO_V4: RecipientField = finalField(23);
const V6_TO_V6: RecipientField = finalField(RECIPIENT_BYTES);

function finalField(length: number): RecipientField {
  return { length, final: true, minimum: length + KEY_MATERIAL_MIN };
}

/**
 * Reads a recipient field from its first `seen` bytes (RFC 9580 sections 5.1.1 and 5.1.2).
 * @param bytes the start of the packet's body; bytes from `seen` on are not looked at
 * @returns what is known of it, or what is wrong with it, as a text for a person
 */
export function recipientField(bytes: Uint8Array, seen: number): RecipientField | string {
  if (seen === 0) return VERSION;
  if (bytes[0] === 3) return V3;
  if (bytes[0] !== 6) return `expected version 3 or 6 in packet ${PKESK}, got ${bytes[0]}`;
  if (seen === 1) return V6_SIZE;
  const size = bytes[1];
  if (size === 0) return V6_HIDDEN;
  if (size !== 21 && size !== 33) return `expected a recipient of 0, 21 or 33 octets, got ${size}`;
  const keyVersion = size === 21 ? 4 : 6;
  if (seen > 2 && bytes[2] !== keyVersion) {
    return `expected a recipient's key of version ${keyVersion}, got version ${bytes[2]}`;
  }
  return size === 21 ? V6_TO_V4 : V6_TO_V6;
}

/**
 * Key id of a complete recipient field as 16 lower-case hex digits, or undefined for a hidden recipient. A v4
 * fingerprint ends with its key id, a v6 fingerprint begins with it (RFC 9580 section 5.5.4).
 */
export function recipientKeyId(bytes: Uint8Array): string | undefined {
  if (bytes[0] === 3) {
    const id = hex(bytes.subarray(1, 9));
    return id === "0000000000000000" ? undefined : id;
  }
  if (bytes[1] === 0) return undefined;
  return bytes[1] === 21 ? hex(bytes.subarray(15, 23)) : hex(bytes.subarray(3, 11));
}

function hex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}
