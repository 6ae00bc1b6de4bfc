import type { StateWriter } from "./state-codec.ts";

/**
 * Walks one message of a format, binary, from its first byte. It is fed byte by byte where it must look, and given how
 * many bytes went by where it need not, so its cost follows the number of headers and not the number of bytes.
 */
export interface Walker {
  /** How many of the next bytes may be passed to {@link Walker.skip}; 0 where the next byte must be looked at. */
  readonly skippable: number;
  /** Whether no packet or line has begun, as before the first byte. */
  readonly untouched: boolean;
  /** Whether the part before the payload is over, so that the header limit no longer counts. */
  readonly payloadStarted: boolean;
  /** Whether the message may end here. */
  readonly complete: boolean;
  /** Passes over bytes unseen; `count` is from 1 to {@link Walker.skippable}. */
  skip(count: number): void;
  /**
   * Takes the next byte, skippable or not.
   * @param offset where the byte, or the last armor character of it, stands in the whole stream
   * @throws FramingError when the message breaks a rule with it
   */
  byte(value: number, offset: number): void;
  /** Appends the fields of the state. */
  encode(writer: StateWriter): void;
}
