import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";

/**
 * Values of {@link Base64Group.place} after three characters: one more padding character is due; padding has ended the
 * text.
 */
const PADDING_DUE = 4;
const PADDED = 5;

/** By place: the greatest value of the bits that no byte has taken yet. */
const GREATEST_BITS: readonly number[] = [0, 0x3f, 0x0f, 0x03, 0, 0];
/** By place: how many characters of the group stand before it, modulo 4. */
const CHARACTERS: readonly number[] = [0, 1, 2, 3, 3, 0];

/** The group of four characters, three bytes, that a base64 text (RFC 4648 section 4) is within. */
export class Base64Group {
  /** Characters seen of the group, from 0 to 3, or one of the two above. */
  #place = 0;
  /** 6, 4 or 2 bits after 1, 2 or 3 characters. */
  #bits = 0;

  /** Whether the next character begins a group. */
  get fresh(): boolean {
    return this.#place === 0;
  }

  /** Whether padding has ended the text. */
  get padded(): boolean {
    return this.#place === PADDED;
  }

  /** Whether another character of the alphabet may follow. */
  get open(): boolean {
    return this.#place < PADDING_DUE;
  }

  /** Characters of the group before this place, modulo 4. */
  get characters(): number {
    return CHARACTERS[this.#place]!;
  }

  /** Takes the six bits of a character; returns the byte that they fill, or -1 for the first of a group. */
  sextet(sextet: number): number {
    const bits = this.#bits;
    switch (this.#place) {
      case 0:
        this.#place = 1;
        this.#bits = sextet;
        return -1;
      case 1:
        this.#place = 2;
        this.#bits = sextet & 0x0f;
        return (bits << 2) | (sextet >> 4);
      case 2:
        this.#place = 3;
        this.#bits = sextet & 0x03;
        return (bits << 4) | (sextet >> 2);
      default:
        this.#place = 0;
        this.#bits = 0;
        return (bits << 6) | sextet;
    }
  }

  /**
   * Takes a padding character; false where none may stand, or where the bits before it do not end with a whole byte.
   */
  pad(): boolean {
    const due = this.#place === 2 || this.#place === 3 || this.#place === PADDING_DUE;
    if (!due || this.#bits !== 0) return false;
    this.#place = this.#place === 2 ? PADDING_DUE : PADDED;
    return true;
  }

  /** Appends the fields of the state. */
  encode(writer: StateWriter): void {
    writer.byte(this.#place).byte(this.#bits);
  }

  /**
   * Reads what {@link Base64Group.encode} wrote.
   * @throws FramingStateError for a state that no text leads to
   */
  decode(reader: StateReader): void {
    this.#place = reader.byte(PADDED);
    this.#bits = reader.byte(0x3f);
    requirePossible(this.#bits <= GREATEST_BITS[this.#place]!);
  }
}
