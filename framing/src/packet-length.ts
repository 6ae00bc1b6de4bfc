import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";

/** Greatest length in bytes that a header can state. */
export const LENGTH_MAX = 0xffff_ffff;
/** Greatest length in bytes of one part of a body of partial lengths. */
export const PARTIAL_MAX = 2 ** 30;

/** Added to a length of two octets in the new format. */
const TWO_OCTET_BIAS = 192;

/**
 * Reads the length octets of a packet's header, or of a further part of its body (RFC 9580 sections 4.2.1 and 4.2.2).
 */
export class PacketLength {
  /** Octets to come of a big-endian number; 0 where the first octet of a new-format length is due. */
  #octets = 0;
  #value = 0;
  #bias = 0;
  #partial = false;

  /** The length in bytes, once {@link PacketLength.byte} has said that it is known. */
  get value(): number {
    return this.#value;
  }

  /** Whether it is that of a part, and another length follows the part. */
  get partial(): boolean {
    return this.#partial;
  }

  /** Begins a length of the new format. */
  expectNew(): void {
    this.#expect(0, 0, 0);
  }

  /** Begins a length of the old format, of 1, 2 or 4 octets. */
  expectOld(octets: number): void {
    this.#expect(octets, 0, 0);
  }

  #expect(octets: number, value: number, bias: number): void {
    this.#octets = octets;
    this.#value = value;
    this.#bias = bias;
    this.#partial = false;
  }

  /** Takes the next octet and says whether the length is known with it. */
  byte(octet: number): boolean {
    if (this.#octets > 0) {
      // Multiplied, since shifts are signed at 32 bits.
      this.#value = this.#value * 0x100 + octet;
      this.#octets -= 1;
      if (this.#octets > 0) return false;
      this.#value += this.#bias;
      return true;
    }
    if (octet >= 192 && octet < 224) {
      this.#expect(1, octet - 192, TWO_OCTET_BIAS);
      return false;
    }
    if (octet === 255) {
      this.#expect(4, 0, 0);
      return false;
    }
    this.#partial = octet >= 224;
    this.#value = this.#partial ? 2 ** (octet & 0x1f) : octet;
    return true;
  }

  /** Appends the fields of the state; only while the length is not known. */
  encode(writer: StateWriter): void {
    writer.byte(this.#octets);
    if (this.#octets > 0) writer.flag(this.#bias > 0).uint(this.#value);
  }

  /**
   * Reads what {@link PacketLength.encode} wrote.
   * @throws FramingStateError for a state that no length leads to
   */
  decode(reader: StateReader): void {
    const octets = reader.byte(4);
    if (octets === 0) {
      this.expectNew();
      return;
    }
    const biased = reader.flag();
    requirePossible(!biased || octets === 1);
    this.#expect(octets, reader.uint(biased ? 31 : 0x100 ** (4 - octets) - 1), biased ? TWO_OCTET_BIAS : 0);
  }
}
