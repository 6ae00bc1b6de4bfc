/**
 * Bytes from the start of the stream within which the part before the payload must fit: OpenPGP session-key packets, or
 * the age header with its MAC line. Counted in the stream as received, so armor counts with its line ends.
 */
export const HEADER_LIMIT = 65_536;

/**
 * Bytes from the start of the stream within which the armor headers of OpenPGP (`Comment: ...`) and their blank line
 * must fit.
 */
export const ARMOR_HEADER_LIMIT = 4_096;

/** Most bytes of white space before the first armor line; the age reference implementation has the same limit. */
export const LEADING_SPACE_LIMIT = 1_024;

/** Most bytes of white space after the last armor line; the age reference implementation has the same limit. */
export const TRAILING_SPACE_LIMIT = 1_023;

/** Longest stream in bytes: offsets are counted exactly up to here (8 PiB). */
export const STREAM_LIMIT = Number.MAX_SAFE_INTEGER;
