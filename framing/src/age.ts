import { asciiBytes, DASH, LF, NOT_BASE64, SEXTETS, SPACE, showByte } from "./ascii.ts";
import { FramingError } from "./errors.ts";
import { ENCRYPT_HINT } from "./hints.ts";
import { HEADER_LIMIT } from "./limits.ts";
import type { Acceptance } from "./policy.ts";
import { ageRecipient, OTHER, type RecipientCounter, STANZA_CHARACTERS } from "./recipients.ts";
import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";
import type { Walker } from "./walker.ts";

const VERSION_LINE = asciiBytes("age-encryption.org/v1\n");
const STANZA_START = 0x3e;

/** Columns of a full line of a stanza's body, and of the MAC in the last header line (32 bytes without padding). */
const BODY_COLUMNS = 64;
const MAC_COLUMNS = 43;

const NONCE_BYTES = 16;
/** Authentication tag at the end of every payload chunk. */
const TAG_BYTES = 16;
/** A full payload chunk with its tag. */
const CHUNK_BYTES = 65_536 + TAG_BYTES;

/** Shortest header in bytes: one stanza of one argument of one character, and an empty body. */
const HEADER_MIN = VERSION_LINE.length + "-> x\n".length + "\n".length + "--- ".length + MAC_COLUMNS + "\n".length;

/** In the version line; {@link AgeWalker.#column} counts its bytes. */
const IN_VERSION = 0;
/** At the start of a line that begins a stanza or ends the header; the column counts up to the second byte. */
const AT_LINE = 1;
/** Behind `->` or an argument's space or within an argument; the column is one of the three below. */
const IN_ARGUMENTS = 2;
const IN_BODY = 3;
/** Behind `--`; the column counts the bytes of `- `. */
const IN_DASHES = 4;
const IN_MAC = 5;
/** The column counts the bytes. */
const IN_NONCE = 6;
/** The column counts the bytes of the open chunk. */
const IN_PAYLOAD = 7;

/** Values of the column in {@link IN_ARGUMENTS}: a space is due, an argument is due, an argument is open. */
const SPACE_DUE = 0;
const ARGUMENT_DUE = 1;
const ARGUMENT_OPEN = 2;

/**
 * Walks an age v1 file (https://github.com/C2SP/C2SP/blob/main/age.md): the header's lines, whose arguments and bodies
 * are opaque, then a nonce, then chunks of 64 KiB and their tags, of which only the last may be shorter, and empty only
 * where it is the first.
 */
export class AgeWalker implements Walker {
  readonly #acceptance: Acceptance;
  #section = IN_VERSION;
  #column = 0;
  /** In {@link AT_LINE}: whether a stanza came before. In {@link IN_PAYLOAD}: whether a full chunk came before. */
  #earlier = false;
  /**
   * In base64: whether the bits that do not fill a byte are zero so far, as they must be at the end (RFC 4648 section
   * 3.5).
   */
  #spareClear = true;

  /** Undefined for a file that was not followed from its first byte. */
  readonly #counter: RecipientCounter | undefined;
  /** The beginning of the open stanza's arguments. */
  #stanza = "";

  constructor(acceptance: Acceptance, counter?: RecipientCounter) {
    this.#acceptance = acceptance;
    this.#counter = counter;
  }

  get skippable(): number {
    if (this.#section === IN_PAYLOAD) return Number.MAX_SAFE_INTEGER;
    return this.#section === IN_NONCE ? NONCE_BYTES - this.#column : 0;
  }

  get untouched(): boolean {
    return this.#section === IN_VERSION && this.#column === 0;
  }

  get payloadStarted(): boolean {
    return this.#section >= IN_NONCE;
  }

  /** Whether the first line has shown that this is an age v1 file. */
  get recognized(): boolean {
    return this.#section > IN_VERSION;
  }

  get complete(): boolean {
    if (this.#section !== IN_PAYLOAD) return false;
    return this.#column > TAG_BYTES || this.#column === (this.#earlier ? 0 : TAG_BYTES);
  }

  skip(count: number): void {
    const column = this.#column + count;
    if (this.#section === IN_NONCE) {
      if (column < NONCE_BYTES) this.#column = column;
      else this.#enter(IN_PAYLOAD, false);
      return;
    }
    if (column >= CHUNK_BYTES) this.#earlier = true;
    this.#column = column % CHUNK_BYTES;
  }

  byte(value: number, offset: number): void {
    if (this.#section >= IN_NONCE) {
      this.skip(1);
      return;
    }
    if (offset >= HEADER_LIMIT) {
      throw new FramingError(
        "header-too-long",
        offset,
        `The age header must end within the first ${HEADER_LIMIT} bytes of the stream, and it does not. ` +
          "Encrypt to fewer recipients",
      );
    }
    switch (this.#section) {
      case IN_VERSION:
        this.#version(value, offset);
        break;
      case AT_LINE:
        this.#line(value, offset);
        break;
      case IN_ARGUMENTS:
        this.#arguments(value, offset);
        break;
      case IN_BODY:
        this.#body(value, offset);
        break;
      case IN_DASHES:
        this.#dashes(value, offset);
        break;
      default:
        this.#mac(value, offset);
    }
  }

  #enter(section: number, earlier: boolean): void {
    this.#section = section;
    this.#column = 0;
    this.#earlier = earlier;
    this.#spareClear = true;
  }

  #version(value: number, offset: number): void {
    if (value !== VERSION_LINE[this.#column]) {
      throw new FramingError(
        "not-ciphertext",
        offset,
        `The stream begins like an age file, and then its first line is not "age-encryption.org/v1". ${ENCRYPT_HINT}`,
      );
    }
    this.#column += 1;
    if (this.#column < VERSION_LINE.length) return;
    this.#acceptance.require("age", offset);
    this.#enter(AT_LINE, false);
  }

  #line(value: number, offset: number): void {
    if (this.#column === 0) {
      if (value !== DASH) throw malformed(offset, 'a line that begins with "-> " or "--- "', value);
      this.#column = 1;
    } else if (value === STANZA_START) {
      this.#enter(IN_ARGUMENTS, true);
    } else if (value !== DASH) {
      throw malformed(offset, 'a line that begins with "-> " or "--- "', value);
    } else if (!this.#earlier) {
      throw malformed(offset, "at least one recipient", value);
    } else {
      this.#enter(IN_DASHES, true);
    }
  }

  #arguments(value: number, offset: number): void {
    if (this.#column === SPACE_DUE) {
      if (value !== SPACE) throw malformed(offset, 'a space after "->"', value);
      this.#column = ARGUMENT_DUE;
    } else if (value > SPACE && value < 0x7f) {
      this.#column = ARGUMENT_OPEN;
      this.#keep(value);
    } else if (this.#column === ARGUMENT_DUE) {
      throw malformed(offset, "an argument of printable characters after a space", value);
    } else if (value === SPACE) {
      this.#column = ARGUMENT_DUE;
      this.#keep(value);
    } else if (value === LF) {
      this.#admit(offset);
      this.#enter(IN_BODY, true);
    } else {
      throw malformed(offset, "arguments of printable characters with single spaces between", value);
    }
  }

  #keep(value: number): void {
    if (this.#counter !== undefined && this.#stanza.length < STANZA_CHARACTERS)
      this.#stanza += String.fromCharCode(value);
  }

  /** The arguments of a stanza are over: counts it, and refuses it where the collection's keys do not have it. */
  #admit(offset: number): void {
    const pinned = this.#acceptance.ageRecipients;
    const name = ageRecipient(this.#stanza);
    this.#stanza = "";
    if (this.#counter === undefined) {
      // The server cuts no header, so that only a made-up state begins within one.
      if (pinned !== undefined) throw stanzaNotAccepted(offset, "a header whose beginning was not seen");
      return;
    }
    if (name === undefined) return;
    const count = this.#counter.add(name);
    if (pinned === undefined) return;
    const most = pinned.get(name) ?? 0;
    if (most === 0) throw stanzaNotAccepted(offset, described(name));
    if (count > most) throw stanzaNotAccepted(offset, `${count} recipients ${described(name)}, and has ${most}`);
  }

  #body(value: number, offset: number): void {
    if (value === LF) {
      if (this.#column === BODY_COLUMNS) {
        this.#column = 0;
        return;
      }
      this.#requireWholeBytes(value, offset);
      this.#enter(AT_LINE, true);
    } else if (this.#column === BODY_COLUMNS) {
      throw malformed(offset, `the end of a line after ${BODY_COLUMNS} characters`, value);
    } else {
      this.#sextet(value, offset);
    }
  }

  #dashes(value: number, offset: number): void {
    if (value !== (this.#column === 0 ? DASH : SPACE)) throw malformed(offset, '"--- " before the MAC', value);
    if (this.#column === 0) this.#column = 1;
    else this.#enter(IN_MAC, true);
  }

  #mac(value: number, offset: number): void {
    if (this.#column < MAC_COLUMNS) {
      this.#sextet(value, offset);
    } else if (value === LF) {
      this.#requireWholeBytes(value, offset);
      this.#enter(IN_NONCE, true);
    } else {
      throw malformed(offset, `the end of the line after ${MAC_COLUMNS} characters of the MAC`, value);
    }
  }

  #sextet(value: number, offset: number): void {
    const sextet = SEXTETS[value]!;
    if (sextet === NOT_BASE64) throw malformed(offset, "base64 without padding", value);
    this.#column += 1;
    const position = this.#column % 4;
    this.#spareClear = position === 2 ? (sextet & 0x0f) === 0 : position === 3 ? (sextet & 0x03) === 0 : true;
  }

  #requireWholeBytes(value: number, offset: number): void {
    const whole = this.#column % 4 !== 1 && this.#spareClear;
    if (!whole) throw malformed(offset, "base64 that ends with a whole byte", value);
  }

  encode(writer: StateWriter): void {
    writer.byte(this.#section).uint(this.#column);
    if (this.#section === AT_LINE || this.#section === IN_PAYLOAD) writer.flag(this.#earlier);
    if (this.#section === IN_BODY || this.#section === IN_MAC) writer.flag(this.#spareClear);
  }

  /**
   * Reads what {@link AgeWalker.encode} wrote.
   * @param offset bytes of the whole stream so far
   * @param armored whether the stream is armored, so that offsets run ahead of the file's bytes
   * @throws FramingStateError for a state that no file leads to
   */
  static decode(reader: StateReader, acceptance: Acceptance, offset: number, armored: boolean): AgeWalker {
    const walker = new AgeWalker(acceptance);
    const section = reader.byte(IN_PAYLOAD);
    walker.#enter(section, true);
    walker.#column = reader.uint(GREATEST_COLUMN[section]!);
    if (section === AT_LINE || section === IN_PAYLOAD) walker.#earlier = reader.flag();
    if (section === IN_BODY || section === IN_MAC) walker.#spareClear = reader.flag();
    requirePossible(walker.#spareClear || walker.#column % 4 >= 2);
    requirePossible(section >= IN_NONCE || offset <= HEADER_LIMIT);
    requirePossible(armored || section !== IN_VERSION || offset === walker.#column);
    requirePossible(offset >= walker.#leastOffset());
    return walker;
  }

  /** Least bytes of a file that lead to this state. */
  #leastOffset(): number {
    if (this.#section === IN_VERSION) return this.#column;
    if (this.#section < IN_NONCE) return VERSION_LINE.length + (this.#section === IN_ARGUMENTS ? 0 : this.#column);
    const nonce = HEADER_MIN + this.#column;
    if (this.#section === IN_NONCE) return nonce;
    return nonce + NONCE_BYTES + (this.#earlier ? CHUNK_BYTES : 0);
  }
}

/** By section: the greatest column between two bytes. */
const GREATEST_COLUMN: readonly number[] = [
  VERSION_LINE.length - 1,
  1,
  ARGUMENT_OPEN,
  BODY_COLUMNS,
  1,
  MAC_COLUMNS,
  NONCE_BYTES - 1,
  CHUNK_BYTES - 1,
];

function described(name: string): string {
  if (name === "age:scrypt") return "a passphrase";
  if (name === OTHER) return "a recipient that it does not know";
  const [, type, tag] = name.split(":");
  return tag === undefined ? `of the type ${type}` : `the ${type} key with the tag ${tag}`;
}

/** A recipient that the collection does not pin. */
function stanzaNotAccepted(offset: number, recipient: string): FramingError {
  return new FramingError(
    "recipient-not-accepted",
    offset,
    `This collection accepts only files to its own keys, and this one is encrypted to ${recipient}. Encrypt to the ` +
      "collection's keys alone",
  );
}

function malformed(offset: number, expected: string, value: number): FramingError {
  return new FramingError(
    "malformed",
    offset,
    `The age file is broken: expected ${expected}, got byte ${showByte(value)}. Encrypt the dump again`,
  );
}
