import { LF, showByte } from "./ascii.ts";
import { FramingError } from "./errors.ts";
import { ARMOR_HEADER_LIMIT, HEADER_LIMIT, TRAILING_SPACE_LIMIT } from "./limits.ts";

/** Armor that broke its rules with a byte. */
export function malformedArmor(offset: number, expected: string, value: number): FramingError {
  const found = value === LF ? "the end of the line" : `byte ${showByte(value)}`;
  return new FramingError(
    "malformed",
    offset,
    `The armor is broken: expected ${expected}, got ${found}. Make the message again, better without armor: ` +
      "binary is faster",
  );
}

/** Armor headers that end after the limit. */
export function armorHeadersTooLong(offset: number): FramingError {
  return new FramingError(
    "header-too-long",
    offset,
    `The armor headers and their blank line must end within the first ${ARMOR_HEADER_LIMIT} bytes, and they do not. ` +
      "Make the message without comments, or binary",
  );
}

/** Session keys or an age header that end, armored, after the limit. */
export function armoredHeaderTooLong(offset: number): FramingError {
  return new FramingError(
    "header-too-long",
    offset,
    `The payload must begin within the first ${HEADER_LIMIT} bytes of the stream, and it does not. Encrypt to ` +
      "fewer keys",
  );
}

/** A last line that comes while the message inside is not over. */
export function truncatedInArmor(offset: number): FramingError {
  return new FramingError(
    "truncated",
    offset,
    "The armor ends in the middle of the message inside it. Look for an error of the program that made it, and " +
      "make it again",
  );
}

/** A byte after the last line. */
export function trailingInArmor(offset: number, value: number): FramingError {
  return new FramingError(
    "trailing-data",
    offset,
    `The armored message is over, and byte ${showByte(value)} follows it. Upload one message alone`,
  );
}

/** More white space after the last line than is allowed. */
export function trailingSpaceTooLong(offset: number): FramingError {
  return new FramingError(
    "trailing-data",
    offset,
    `The armored message is over, and more than ${TRAILING_SPACE_LIMIT} bytes of white space follow it. Upload ` +
      "one message alone",
  );
}
