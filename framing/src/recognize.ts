import { CR, LF, SPACE, TAB } from "./ascii.ts";
import { LEADING_SPACE_LIMIT } from "./limits.ts";
import { SIGNATURES } from "./signatures.ts";

/** What a stream seems to be that is neither an encrypted OpenPGP message nor an age file. */
export interface Recognized {
  /** What it is, with its article. */
  readonly what: string;
  /** Whether it is encrypted, in a way that is not accepted here. */
  readonly encrypted: boolean;
}

/** So much of a stream is looked at for text, in bytes. */
const TEXT_SAMPLE = 4_096;

/** So much of a stream is searched for armor, in bytes. */
const ARMOR_SEARCH = 65_536;

const ARMOR_LINES = ["-----BEGIN PGP MESSAGE-----", "-----BEGIN AGE ENCRYPTED FILE-----"] as const;

/**
 * OID 1.2.840.113549.1.7.3, enveloped data of CMS (RFC 5652 section 6), and its compressed and authenticated relatives.
 */
const ENVELOPED = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07] as const;

/**
 * Recognizes a file by its beginning.
 * @param head the first bytes of the stream, as many as there are
 * @param guess whether text may be recognized by its bytes alone, where no signature is known
 */
export function recognize(head: Uint8Array, guess: boolean): Recognized | undefined {
  for (const { what, bytes, at = 0, encrypted = false } of SIGNATURES) {
    if (!holds(head, at, bytes)) continue;
    // PKZIP's APPNOTE, 4.4.4: bit 0 of the flags.
    if (what === "a zip archive" && ((head[6] ?? 0) & 1) !== 0)
      return { what: "an encrypted zip archive", encrypted: true };
    return { what, encrypted };
  }
  if (isCms(head)) return { what: "an S/MIME or CMS message", encrypted: true };
  return guess ? asText(head) : undefined;
}

/**
 * Where an armor line follows other text.
 * @returns bytes before it, or undefined where there is none, or nothing before it
 */
export function armorAfterText(head: Uint8Array): number | undefined {
  const text = latin1(head.subarray(0, ARMOR_SEARCH));
  const at = Math.min(...ARMOR_LINES.map((line) => text.indexOf(line)).filter((index) => index >= 0));
  if (at === 0 || at === Number.POSITIVE_INFINITY) return undefined;
  // Too much white space has a reason of its own.
  return at > LEADING_SPACE_LIMIT && text.slice(0, at).trim() === "" ? undefined : at;
}

function holds(head: Uint8Array, at: number, bytes: ArrayLike<number>): boolean {
  if (head.length < at + bytes.length) return false;
  for (let index = 0; index < bytes.length; index += 1) if (head[at + index] !== bytes[index]) return false;
  return true;
}

/** A DER or BER sequence that begins with a content type of CMS. */
function isCms(head: Uint8Array): boolean {
  if (head[0] !== 0x30) return false;
  for (let at = 2; at <= 6; at += 1) if (holds(head, at, ENVELOPED)) return true;
  return false;
}

/** Text by its bytes: UTF-8 or UTF-16 without marks, and some kinds of it. */
function asText(head: Uint8Array): Recognized | undefined {
  const sample = head.subarray(0, TEXT_SAMPLE);
  if (sample.length < 4) return undefined;
  const evenZeros = sample.filter((byte, index) => byte === 0 && index % 2 === 0).length;
  const oddZeros = sample.filter((byte, index) => byte === 0 && index % 2 === 1).length;
  const half = sample.length / 2;
  if ((evenZeros === 0 && oddZeros > half * 0.8) || (oddZeros === 0 && evenZeros > half * 0.8)) {
    return { what: "text in UTF-16", encrypted: false };
  }
  if (!isUtf8Text(sample)) return undefined;
  const text = latin1(sample);
  if (/^\s*\{"created":.*"kdf":/s.test(text)) return { what: "a key of a restic repository", encrypted: true };
  if (/^\[repository\]\s/.test(text)) return { what: "the configuration of a Borg repository", encrypted: true };
  if (/^(mime-version|content-type|content-transfer-encoding):/im.test(text) && /pkcs7-mime/i.test(text)) {
    return { what: "an S/MIME message", encrypted: true };
  }
  if (/^\s*<(!doctype|html)/i.test(text)) return { what: "an HTML page", encrypted: false };
  if (/^\s*[[{]/.test(text)) return { what: "JSON", encrypted: false };
  if (
    /^\s*(--|\/\*|create|insert|drop|set|begin|use|pragma|alter|start transaction)\b/i.test(text) ||
    /^\s*--\s/.test(text)
  ) {
    return { what: "an SQL dump", encrypted: false };
  }
  return { what: "plain text", encrypted: false };
}

/**
 * Whether bytes are UTF-8 (RFC 3629) without control characters but white space and escape; a character that is cut at
 * the end counts.
 */
function isUtf8Text(bytes: Uint8Array): boolean {
  let missing = 0;
  for (const byte of bytes) {
    if (missing > 0) {
      if ((byte & 0xc0) !== 0x80) return false;
      missing -= 1;
    } else if (byte >= 0x80) {
      if (byte < 0xc2 || byte > 0xf4) return false;
      missing = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    } else if (byte < SPACE && byte !== TAB && byte !== LF && byte !== CR && byte !== 0x0c && byte !== 0x1b)
      return false;
    else if (byte === 0x7f) return false;
  }
  return true;
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  // In pieces: a function takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 8_192) text += String.fromCharCode(...bytes.subarray(at, at + 8_192));
  return text;
}
