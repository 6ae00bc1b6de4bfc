/**
 * Why a stream was refused. The words are stable: they are stored with failed uploads and shown to clients.
 *
 * - `not-ciphertext`: the start is neither an encrypted OpenPGP message nor an age file
 * - `format-not-accepted`: it is one of the two, but the collection accepts only the other
 * - `malformed`: it began as the format and then broke its rules
 * - `not-integrity-protected`: OpenPGP data without integrity protection (packet 9)
 * - `recipient-not-accepted`: encrypted to a key the collection does not name, to a hidden one, or to a passphrase
 * - `header-too-long`: the part before the payload does not fit its limit
 * - `trailing-data`: something follows the end of the message
 * - `truncated`: the stream ended inside the message
 * - `empty`: there was no byte at all
 */
export type FramingViolation =
  | "not-ciphertext"
  | "format-not-accepted"
  | "malformed"
  | "not-integrity-protected"
  | "recipient-not-accepted"
  | "header-too-long"
  | "trailing-data"
  | "truncated"
  | "empty";

/**
 * A stream that is not what the collection accepts. The message is for a person: what was expected, what it got, what
 * to do.
 */
export class FramingError extends Error {
  override readonly name = "FramingError";
  /** The rule that was broken. */
  readonly violation: FramingViolation;
  /**
   * Offset in bytes, in the whole stream, of the byte at which it was seen; the stream's length where the end itself is
   * wrong.
   */
  readonly offset: bigint;

  /**
   * @param violation the rule that was broken
   * @param offset bytes before the one at fault, in the whole stream
   * @param message what was expected, what it got, what to do; the offset is appended
   */
  constructor(violation: FramingViolation, offset: number, message: string) {
    super(`${message} (at byte ${offset} of the stream)`);
    this.violation = violation;
    this.offset = BigInt(offset);
  }
}

/**
 * An encoded state that is malformed, of an unknown version, or that no stream can lead to. Encoded states are
 * untrusted input.
 */
export class FramingStateError extends Error {
  override readonly name = "FramingStateError";

  /** @param detail what is wrong with the state */
  constructor(detail: string) {
    super(
      `The framing state cannot be used: ${detail}. Give the state that the segment before ended in, byte for byte, ` +
        "or none where the server keeps it.",
    );
  }
}
