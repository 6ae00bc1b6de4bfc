import { AGE_LABEL, type ArmorLabel, PGP_LABEL, SHARED_BEGIN } from "./armor-label.ts";
import { CR, DASH, LF, SPACE, showByte, TAB } from "./ascii.ts";
import { FramingError } from "./errors.ts";
import { describePacketStart, describeStart, ENCRYPT_HINT } from "./hints.ts";
import { LEADING_SPACE_LIMIT } from "./limits.ts";
import { isMessagePacket, packetType } from "./packets.ts";
import type { CiphertextFormat } from "./policy.ts";
import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";

/** The first letter of the only format that begins with a letter. */
const AGE_START = 0x61;

/**
 * How a stream turned out to begin. A binary format begins with the byte that showed it, armor after its first line's
 * text.
 */
export interface Beginning {
  /** The format. */
  readonly format: CiphertextFormat;
  /** The armor's label, or undefined for binary. */
  readonly armor: ArmorLabel | undefined;
}

const BINARY_PGP: Beginning = { format: "openpgp", armor: undefined };
const BINARY_AGE: Beginning = { format: "age", armor: undefined };
const ARMORED_PGP: Beginning = { format: "openpgp", armor: PGP_LABEL };
const ARMORED_AGE: Beginning = { format: "age", armor: AGE_LABEL };

/** The start of a stream, until it is known what it is: nothing, white space, or a part of an armor's first line. */
export class Start {
  /** Whether the next byte begins a line; counts while nothing of an armor line was seen. */
  #lineStart = true;
  /** Characters seen of an armor's first line. */
  #matched = 0;
  /** What the line belongs to; undefined while both are possible. */
  #beginning: Beginning | undefined;

  /**
   * Takes the next byte.
   * @returns what the stream is, as soon as it is known
   * @throws FramingError "not-ciphertext"
   */
  byte(value: number, offset: number): Beginning | undefined {
    if (this.#matched > 0) return this.#match(value, offset);
    if (offset === 0) {
      if (value === AGE_START) return BINARY_AGE;
      const type = packetType(value);
      if (isMessagePacket(type)) return BINARY_PGP;
      if (type !== undefined) throw new FramingError("not-ciphertext", offset, describePacketStart(type, value));
    }
    if (value === DASH && this.#lineStart) {
      this.#matched = 1;
      return undefined;
    }
    if (value !== LF && value !== CR && value !== SPACE && value !== TAB) {
      throw new FramingError("not-ciphertext", offset, describeStart(value));
    }
    if (offset >= LEADING_SPACE_LIMIT) {
      throw new FramingError(
        "not-ciphertext",
        offset,
        `Expected an armor line after at most ${LEADING_SPACE_LIMIT} bytes of white space, got more white space`,
      );
    }
    this.#lineStart = value === LF;
    return undefined;
  }

  #match(value: number, offset: number): Beginning | undefined {
    if (this.#matched === SHARED_BEGIN) {
      this.#beginning = value === ARMORED_AGE.armor!.begin[SHARED_BEGIN] ? ARMORED_AGE : ARMORED_PGP;
    }
    const begin = (this.#beginning ?? ARMORED_PGP).armor!.begin;
    if (value !== begin[this.#matched]) {
      throw new FramingError(
        "not-ciphertext",
        offset,
        'Expected the first line "-----BEGIN PGP MESSAGE-----" or "-----BEGIN AGE ENCRYPTED FILE-----", got byte ' +
          `${showByte(value)}, which does not fit: plain SQL, keys, signatures and signed texts are not ` +
          `encrypted. ${ENCRYPT_HINT}`,
      );
    }
    this.#matched += 1;
    return this.#matched === begin.length ? this.#beginning : undefined;
  }

  /** Appends the fields of the state. */
  encode(writer: StateWriter): void {
    writer.byte(this.#matched);
    if (this.#matched === 0) writer.flag(this.#lineStart);
    else if (this.#matched > SHARED_BEGIN) writer.flag(this.#beginning === ARMORED_AGE);
  }

  /**
   * Reads what {@link Start.encode} wrote.
   * @throws FramingStateError for a state that no stream of `offset` bytes leads to
   */
  static decode(reader: StateReader, offset: number): Start {
    const start = new Start();
    start.#matched = reader.byte(AGE_LABEL.begin.length - 1);
    if (start.#matched === 0) {
      start.#lineStart = reader.flag();
      requirePossible(start.#lineStart || offset > 0);
    } else if (start.#matched > SHARED_BEGIN) {
      start.#beginning = reader.flag() ? ARMORED_AGE : ARMORED_PGP;
      requirePossible(start.#matched < start.#beginning.armor!.begin.length);
    }
    const space = offset - start.#matched;
    requirePossible(space >= 0 && space <= LEADING_SPACE_LIMIT);
    return start;
  }
}
