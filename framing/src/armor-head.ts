import { malformedArmor } from "./armor-refusals.ts";
import { LF, SPACE, TAB } from "./ascii.ts";
import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";

/** Behind the text of the first line, before its end. */
const AT_BEGIN_END = 0;
/** At the start of an armor header or of the blank line. */
const AT_HEADER = 1;
/** In a line of white space alone, which ends the armor headers. */
const IN_BLANK = 2;
/** In the key of an armor header, after its colon, in its value. */
const IN_KEY = 3;
const AT_VALUE = 4;
const IN_VALUE = 5;

const COLON = 0x3a;

/**
 * What is between the text of an armor's first line and its base64: the end of that line, and in OpenPGP armor
 * headers (`Comment: ...`) and a blank line (RFC 9580 section 6.2). Strict armor (age) has neither headers nor blanks.
 */
export class ArmorHead {
  readonly #strict: boolean;
  #place = AT_BEGIN_END;

  constructor(strict: boolean) {
    this.#strict = strict;
  }

  /** Whether a carriage return may stand here, before a line feed. */
  get lineMayEnd(): boolean {
    return this.#place !== IN_KEY;
  }

  /**
   * Takes the next byte, carriage returns left out, and says whether the head is over with it.
   * @throws FramingError "malformed"
   */
  byte(value: number, offset: number): boolean {
    const blank = value === SPACE || value === TAB;
    switch (this.#place) {
      case AT_BEGIN_END:
        if (value === LF) {
          this.#place = AT_HEADER;
          return this.#strict;
        }
        if (this.#strict || !blank) throw malformedArmor(offset, "the end of the first line", value);
        return false;
      case AT_HEADER:
        if (value === LF) return true;
        if (blank) this.#place = IN_BLANK;
        else if (isGraphic(value) && value !== COLON) this.#place = IN_KEY;
        else throw malformedArmor(offset, "an armor header or a blank line", value);
        return false;
      case IN_BLANK:
        if (value !== LF && !blank) throw malformedArmor(offset, "a blank line", value);
        return value === LF;
      case IN_KEY:
        if (value === COLON) this.#place = AT_VALUE;
        else if (!isGraphic(value)) throw malformedArmor(offset, 'an armor header ("Key: value")', value);
        return false;
      default:
        this.#value(value, offset);
        return false;
    }
  }

  #value(value: number, offset: number): void {
    if (value === LF) {
      this.#place = AT_HEADER;
      return;
    }
    if (this.#place === AT_VALUE && value !== SPACE) {
      throw malformedArmor(offset, "a space after an armor header's colon", value);
    }
    if (!isText(value)) throw malformedArmor(offset, "text in an armor header", value);
    this.#place = IN_VALUE;
  }

  /** Appends the fields of the state. */
  encode(writer: StateWriter): void {
    writer.byte(this.#place);
  }

  /**
   * Reads what {@link ArmorHead.encode} wrote.
   * @throws FramingStateError for a state that no armor leads to
   */
  decode(reader: StateReader): void {
    this.#place = reader.byte(IN_VALUE);
    requirePossible(!this.#strict || this.#place === AT_BEGIN_END);
  }
}

/** Printable ASCII without space. */
export function isGraphic(value: number): boolean {
  return value > SPACE && value < 0x7f;
}

/** What armor headers may hold: UTF-8 without control characters but tab. */
function isText(value: number): boolean {
  return (value >= SPACE && value !== 0x7f) || value === TAB;
}
