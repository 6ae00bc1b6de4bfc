import { ArmorHead, isGraphic } from "./armor-head.ts";
import type { ArmorLabel } from "./armor-label.ts";
import {
  armoredHeaderTooLong,
  armorHeadersTooLong,
  malformedArmor,
  trailingInArmor,
  trailingSpaceTooLong,
  truncatedInArmor,
} from "./armor-refusals.ts";
import { CR, DASH, EQUALS, LF, NOT_BASE64, SEXTETS, SPACE, TAB } from "./ascii.ts";
import { Base64Group } from "./base64-group.ts";
import { ARMOR_HEADER_LIMIT, HEADER_LIMIT, TRAILING_SPACE_LIMIT } from "./limits.ts";
import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";
import type { Walker } from "./walker.ts";

/** Before base64. */
const IN_HEAD = 0;
const IN_BODY = 1;
/** At the start of a line after the last one of base64: a checksum (OpenPGP) or the last line is due. */
const AFTER_BODY = 2;
/** OpenPGP: in a checksum. */
const IN_CHECKSUM = 3;
/** OpenPGP: at the start of the line after a checksum. */
const AFTER_CHECKSUM = 4;
/** In the text of the last line. */
const IN_END = 5;
/** Behind the text of the last line; the column counts the bytes of white space. */
const AFTER_END = 6;

/**
 * Reads ASCII armor after its first line's text and hands the bytes inside to a walker. Lines end with LF or CR LF. An
 * OpenPGP checksum is passed over, whatever it says, as RFC 9580 section 6.1 demands.
 */
export class ArmorReader {
  readonly #label: ArmorLabel;
  readonly #walker: Walker;
  #section = IN_HEAD;
  /** Characters of the line seen, where the section counts them. */
  #column = 0;
  /** Whether a carriage return was just seen, so that only a line feed may follow. */
  #return = false;
  readonly #head: ArmorHead;
  readonly #group = new Base64Group();

  constructor(label: ArmorLabel, walker: Walker) {
    this.#head = new ArmorHead(label.strict);
    this.#label = label;
    this.#walker = walker;
  }

  /** Whether the last line was seen; the walker's completeness was checked at its start. */
  get complete(): boolean {
    return this.#section === AFTER_END;
  }

  /**
   * Takes the rest of a chunk.
   * @param from index of the first byte to take
   * @param base offset in the whole stream of the chunk's first byte
   * @throws FramingError
   */
  push(chunk: Uint8Array, from: number, base: number): void {
    let at = from;
    while (at < chunk.length) {
      if (this.#section === IN_BODY && this.#group.fresh) {
        at = this.#passGroups(chunk, at);
        if (at === chunk.length) return;
      }
      this.#byte(chunk[at]!, base + at);
      at += 1;
    }
  }

  /**
   * Passes whole groups of one line whose bytes the walker does not want to see; returns the index of the first byte
   * left.
   */
  #passGroups(chunk: Uint8Array, from: number): number {
    const walker = this.#walker;
    // Before the payload every byte is taken on its own, so that the header limit is seen at the byte that passes it.
    if (!walker.payloadStarted || this.#return) return from;
    const characters = Math.min(chunk.length - from, this.#label.columns - this.#column);
    const groups = Math.min(characters >> 2, Math.floor(walker.skippable / 3));
    let at = from;
    for (const end = from + groups * 4; at < end; at += 4) {
      const sextets =
        SEXTETS[chunk[at]!]! | SEXTETS[chunk[at + 1]!]! | SEXTETS[chunk[at + 2]!]! | SEXTETS[chunk[at + 3]!]!;
      if ((sextets & NOT_BASE64) !== 0) break;
    }
    const passed = at - from;
    if (passed > 0) {
      this.#column += passed;
      walker.skip((passed >> 2) * 3);
    }
    return at;
  }

  #byte(value: number, offset: number): void {
    if (offset >= HEADER_LIMIT && !this.#walker.payloadStarted) throw armoredHeaderTooLong(offset);
    if (offset >= ARMOR_HEADER_LIMIT && this.#section === IN_HEAD) throw armorHeadersTooLong(offset);
    if (this.#section === AFTER_END) {
      this.#trailing(value, offset);
      return;
    }
    if (this.#return && value !== LF) throw malformedArmor(offset, "a line feed after a carriage return", value);
    if (value === CR && this.#lineMayEnd()) {
      this.#return = true;
      return;
    }
    this.#return = false;
    if (this.#section === IN_BODY) this.#body(value, offset);
    else if (this.#section !== IN_HEAD) this.#afterBody(value, offset);
    else if (this.#head.byte(value, offset)) this.#enter(IN_BODY);
  }

  /** Sections in which a carriage return can begin the end of a line; elsewhere it is refused as any other byte. */
  #lineMayEnd(): boolean {
    if (this.#section === IN_HEAD) return this.#head.lineMayEnd;
    return this.#section === IN_BODY || this.#section === IN_CHECKSUM;
  }

  #enter(section: number): void {
    this.#section = section;
    this.#column = 0;
  }

  #body(value: number, offset: number): void {
    if (value === LF) {
      this.#endBodyLine(offset);
      return;
    }
    // Within a group the equals sign is padding that was moved to the next line.
    if (this.#column === 0 && this.#group.fresh && (value === DASH || value === EQUALS)) {
      this.#afterBody(value, offset);
      return;
    }
    if (this.#column === this.#label.columns) {
      throw malformedArmor(offset, `the end of a line after at most ${this.#label.columns} characters`, value);
    }
    const sextet = SEXTETS[value]!;
    if (value === EQUALS) {
      if (!this.#group.pad()) throw malformedArmor(offset, "base64 that ends with a whole byte", value);
    } else {
      if (sextet === NOT_BASE64 || !this.#group.open) throw malformedArmor(offset, "base64", value);
      const byte = this.#group.sextet(sextet);
      if (byte >= 0) this.#walker.byte(byte, offset);
    }
    this.#column += 1;
  }

  #endBodyLine(offset: number): void {
    if (this.#column === 0) throw malformedArmor(offset, "base64 or the last line of the armor", LF);
    const { fresh, padded } = this.#group;
    const short = this.#label.strict && this.#column < this.#label.columns;
    if (short && !fresh && !padded) throw malformedArmor(offset, "whole groups of base64", LF);
    if (short || padded) this.#enter(AFTER_BODY);
    else this.#column = 0;
  }

  /** From the start of the line after base64 to the text of the last line. */
  #afterBody(value: number, offset: number): void {
    if (this.#section === IN_CHECKSUM) {
      this.#checksum(value, offset);
      return;
    }
    if (this.#section === IN_END) {
      if (value !== this.#label.end[this.#column]) throw malformedArmor(offset, this.#endText(), value);
      this.#column += 1;
      if (this.#column === this.#label.end.length) this.#enter(AFTER_END);
      return;
    }
    if (value === EQUALS && !this.#label.strict && this.#section !== AFTER_CHECKSUM) {
      this.#enter(IN_CHECKSUM);
      return;
    }
    if (value !== DASH) throw malformedArmor(offset, this.#endText(), value);
    if (!this.#walker.complete) throw truncatedInArmor(offset);
    this.#enter(IN_END);
    this.#column = 1;
  }

  #checksum(value: number, offset: number): void {
    if (value === LF) {
      this.#enter(AFTER_CHECKSUM);
      return;
    }
    this.#column += 1;
    if (isGraphic(value) && this.#column < this.#label.columns) return;
    throw malformedArmor(offset, "a checksum or the end of its line", value);
  }

  #trailing(value: number, offset: number): void {
    const lineEnd = value === LF || value === CR;
    if (!lineEnd && ((value !== SPACE && value !== TAB) || (this.#label.strict && this.#column === 0))) {
      throw trailingInArmor(offset, value);
    }
    if (this.#column === TRAILING_SPACE_LIMIT) throw trailingSpaceTooLong(offset);
    this.#column += 1;
  }

  #endText(): string {
    return `the line "${String.fromCharCode(...this.#label.end)}"`;
  }

  /** Appends the fields of the state. */
  encode(writer: StateWriter): void {
    writer.byte(this.#section).flag(this.#return).uint(this.#column);
    if (this.#section === IN_HEAD) this.#head.encode(writer);
    if (this.#section === IN_BODY) this.#group.encode(writer);
  }

  /**
   * Reads what {@link ArmorReader.encode} wrote; the walker was decoded before.
   * @param offset bytes of the whole stream so far
   * @throws FramingStateError for a state that no armor leads to
   */
  static decode(reader: StateReader, label: ArmorLabel, walker: Walker, offset: number): ArmorReader {
    const armor = new ArmorReader(label, walker);
    armor.#section = reader.byte(AFTER_END);
    armor.#return = reader.flag();
    armor.#column = reader.uint(TRAILING_SPACE_LIMIT);
    if (armor.#section === IN_HEAD) armor.#head.decode(reader);
    if (armor.#section === IN_BODY) armor.#group.decode(reader);
    armor.#requirePossible(offset);
    return armor;
  }

  #requirePossible(offset: number): void {
    const { begin, columns, end, strict } = this.#label;
    const section = this.#section;
    requirePossible(offset >= begin.length && (offset <= HEADER_LIMIT || this.#walker.payloadStarted));
    requirePossible(!this.#return || this.#lineMayEnd());
    if (section === IN_HEAD) {
      requirePossible(this.#column === 0 && offset <= ARMOR_HEADER_LIMIT && this.#walker.untouched);
    } else if (section === IN_BODY) {
      const { characters, padded } = this.#group;
      requirePossible(this.#column <= columns && (!padded || this.#column > 0));
      requirePossible(!strict || this.#column % 4 === characters);
    } else if (section === IN_CHECKSUM) {
      requirePossible(!strict && this.#column < columns);
    } else if (section === IN_END) {
      requirePossible(this.#column > 0 && this.#column < end.length);
    } else if (section !== AFTER_END) {
      requirePossible(this.#column === 0 && (section === AFTER_BODY || !strict));
    }
    if (section > AFTER_CHECKSUM) requirePossible(this.#walker.complete);
  }
}
