/** Line feed. */
export const LF = 0x0a;
/** Carriage return. */
export const CR = 0x0d;
/** Space. */
export const SPACE = 0x20;
/** Horizontal tab. */
export const TAB = 0x09;
/** Hyphen, with which armor lines and the last line of an age header begin. */
export const DASH = 0x2d;
/** Equals sign: base64 padding, and the start of an OpenPGP armor checksum. */
export const EQUALS = 0x3d;

/**
 * Marks the bytes outside the base64 alphabet in {@link SEXTETS}; no sextet has this bit, so values can be or-ed before
 * one test.
 */
export const NOT_BASE64 = 0x80;

/**
 * Byte to its six bits in standard base64 (RFC 4648 section 4), or {@link NOT_BASE64}. Padding is not in the alphabet.
 */
export const SEXTETS: Readonly<Uint8Array> = (() => {
  const table = new Uint8Array(256).fill(NOT_BASE64);
  const alphabet = asciiBytes("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
  for (const [sextet, byte] of alphabet.entries()) table[byte] = sextet;
  return table;
})();

/** The bytes of an ASCII text. */
export function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** A byte as it is shown in messages: hex, and the character where it is printable. */
export function showByte(value: number): string {
  const hex = `0x${value.toString(16).padStart(2, "0")}`;
  return value > SPACE && value < 0x7f ? `${hex} ("${String.fromCharCode(value)}")` : hex;
}
