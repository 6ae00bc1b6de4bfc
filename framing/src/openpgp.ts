import { showByte } from "./ascii.ts";
import { HEADER_LIMIT } from "./limits.ts";
import {
  headerTooLong,
  malformed,
  notEncrypted,
  notIntegrityProtected,
  notOpenPgp,
  passphraseNotAccepted,
  recipientNotAccepted,
  tooShort,
  trailingData,
} from "./openpgp-refusals.ts";
import { LENGTH_MAX, PARTIAL_MAX, PacketLength } from "./packet-length.ts";
import {
  FIRST_PARTIAL_MIN,
  isDataPacket,
  isKeyPacket,
  isMessagePacket,
  knownVersions,
  MARKER,
  MARKER_TEXT,
  minimumBody,
  minimumOfVersion,
  PADDING,
  PKESK,
  packetType,
  SEIPD,
  SKESK,
  UNPROTECTED,
} from "./packets.ts";
import type { Acceptance } from "./policy.ts";
import { openPgpRecipient, PASSPHRASE, type RecipientCounter } from "./recipients.ts";
import { RECIPIENT_BYTES, recipientField, recipientKeyId } from "./session-key.ts";
import { requirePossible, type StateReader, type StateWriter } from "./state-codec.ts";
import type { Walker } from "./walker.ts";

/** No session-key packet has ended yet. */
const BEFORE_KEYS = 0;
/** At least one session-key packet has ended; up to and with the encrypted-data packet. */
const AFTER_KEYS = 1;
/** The encrypted-data packet has ended. */
const AFTER_DATA = 2;

/** Steps within a packet: its first octet, a length, the part of the body that is looked at, the rest of it. */
const AT_TYPE = 0;
const AT_LENGTH = 1;
const AT_INSPECTED = 2;
const AT_BODY = 3;

/** By phase: least bytes of a message that has come to it. */
const SHORTEST = [0, 2 + minimumBody(SKESK), 4 + minimumBody(SKESK) + minimumBody(SEIPD)] as const;

/**
 * Walks the packets of an encrypted OpenPGP message (RFC 9580 section 10.3): session-key packets, one encrypted-data
 * packet with integrity protection, the end; marker and padding packets anywhere between.
 */
export class OpenPgpWalker implements Walker {
  readonly #acceptance: Acceptance;
  #phase = BEFORE_KEYS;
  #step = AT_TYPE;
  /** Type of the packet that is open; 0 at {@link AT_TYPE}. */
  #type = 0;
  /** At {@link AT_LENGTH}: the length, and whether it is that of a further part of a body, not of a new packet. */
  readonly #length = new PacketLength();
  #continued = false;
  /** At the body steps: whether another length follows this part, and the bytes left in it. */
  #partial = false;
  #remaining = 0;
  /** At {@link AT_INSPECTED}: bytes of the body that were looked at, and for public-key packets those bytes. */
  #seen = 0;
  readonly #inspected = new Uint8Array(RECIPIENT_BYTES);

  /** Undefined for one that was not followed from its first byte. */
  readonly #counter: RecipientCounter | undefined;

  constructor(acceptance: Acceptance, counter?: RecipientCounter) {
    this.#acceptance = acceptance;
    this.#counter = counter;
  }

  get skippable(): number {
    return this.#step === AT_BODY ? this.#remaining : 0;
  }

  get untouched(): boolean {
    return this.#phase === BEFORE_KEYS && this.#step === AT_TYPE;
  }

  get payloadStarted(): boolean {
    return this.#phase === AFTER_DATA || isDataPacket(this.#type);
  }

  get complete(): boolean {
    return this.#phase === AFTER_DATA && this.#step === AT_TYPE;
  }

  skip(count: number): void {
    this.#remaining -= count;
    if (this.#remaining === 0) this.#endPart();
  }

  byte(value: number, offset: number): void {
    if (offset >= HEADER_LIMIT && !this.payloadStarted) {
      // The payload may begin right after the limit.
      if (this.#step !== AT_TYPE || !isDataPacket(packetType(value))) throw headerTooLong(offset);
    }
    switch (this.#step) {
      case AT_TYPE:
        this.#openPacket(value, offset);
        break;
      case AT_LENGTH:
        if (this.#length.byte(value)) this.#openBody(this.#length.value, this.#length.partial, offset);
        break;
      case AT_INSPECTED:
        this.#inspect(value, offset);
        break;
      default:
        this.skip(1);
    }
  }

  #openPacket(value: number, offset: number): void {
    const type = this.#admit(value, offset);
    if (type === SKESK) this.#counter?.add(PASSPHRASE);
    const old = (value & 0x40) === 0;
    if (old && (value & 0x03) === 3) {
      throw malformed(
        offset,
        `packet ${type} has an indeterminate length, so its end cannot be distinguished from a broken connection`,
      );
    }
    if (old) this.#length.expectOld(1 << (value & 0x03));
    else this.#length.expectNew();
    this.#type = type;
    this.#continued = false;
    this.#step = AT_LENGTH;
  }

  /**
   * Type of the packet that begins with this byte.
   * @throws FramingError where no such packet may begin
   */
  #admit(value: number, offset: number): number {
    const type = packetType(value);
    const filler = type === MARKER || type === PADDING;
    if (this.#phase === AFTER_DATA) {
      if (filler) return type;
      throw trailingData(offset, value);
    }
    if (type === UNPROTECTED) throw notIntegrityProtected(offset);
    if (type === SKESK && this.#acceptance.keyIds !== undefined) throw passphraseNotAccepted(offset);
    if (type !== undefined && (filler || isKeyPacket(type))) return type;
    if (type !== undefined && isDataPacket(type)) {
      if (this.#phase === AFTER_KEYS) return type;
      throw malformed(offset, `expected a session-key packet before the encrypted data (packet ${type}), got none`);
    }
    if (this.#phase === BEFORE_KEYS) throw notEncrypted(offset, type, value);
    const found = type === undefined ? `byte ${showByte(value)}, which begins no packet,` : `packet ${type}`;
    throw malformed(offset, `expected a session-key packet or encrypted data, got ${found}`);
  }

  /** The length of a body, or of a part of it, is known; `offset` is that of its last octet. */
  #openBody(length: number, partial: boolean, offset: number): void {
    const type = this.#type;
    if (!this.#continued) {
      if (partial && !isDataPacket(type)) throw malformed(offset, `packet ${type} may not have partial lengths`);
      const minimum = partial ? FIRST_PARTIAL_MIN : minimumBody(type);
      if (length < minimum) throw tooShort(offset, type, minimum, length);
      if (type === MARKER && length > minimum) {
        throw malformed(offset, `a marker packet has ${minimum} bytes, and not ${length}`);
      }
      if (!this.payloadStarted && offset + 1 + length > HEADER_LIMIT) throw headerTooLong(offset);
    }
    this.#partial = partial;
    this.#remaining = length;
    this.#seen = 0;
    this.#step = this.#continued || type === PADDING ? AT_BODY : AT_INSPECTED;
    if (length === 0) this.#endPart();
  }

  #inspect(value: number, offset: number): void {
    let wanted = 1;
    if (this.#type === PKESK) wanted = this.#inspectRecipient(value, offset);
    else if (this.#type === MARKER) wanted = this.#inspectMarker(value, offset);
    else this.#inspectVersion(value, offset);
    this.#seen += 1;
    if (this.#seen === wanted) this.#step = AT_BODY;
    this.skip(1);
  }

  /** Takes the next byte of a recipient field and returns how long the field is, as far as known. */
  #inspectRecipient(value: number, offset: number): number {
    const size = this.#seen + this.#remaining;
    const seen = this.#seen + 1;
    this.#inspected[this.#seen] = value;
    const field = recipientField(this.#inspected, seen);
    if (typeof field === "string") throw seen === 1 ? this.#unknown(offset, field) : malformed(offset, field);
    if (size < field.minimum) throw tooShort(offset, PKESK, field.minimum, size);
    const { keyIds } = this.#acceptance;
    if (field.final && seen === field.length) {
      const keyId = recipientKeyId(this.#inspected);
      if (keyIds !== undefined && (keyId === undefined || !keyIds.has(keyId))) {
        throw recipientNotAccepted(offset, keyId);
      }
      this.#counter?.add(openPgpRecipient(keyId));
    }
    return field.length;
  }

  #inspectMarker(value: number, offset: number): number {
    if (value !== MARKER_TEXT[this.#seen])
      throw this.#unknown(offset, 'expected a marker packet that says "PGP", got other bytes');
    return MARKER_TEXT.length;
  }

  #inspectVersion(version: number, offset: number): void {
    const type = this.#type;
    const minimum = minimumOfVersion(type, version);
    if (minimum === undefined) {
      throw this.#unknown(offset, `expected version ${knownVersions(type)} in packet ${type}, got ${version}`);
    }
    // The first of partial lengths is long enough for every version.
    if (this.#remaining < minimum) throw tooShort(offset, type, minimum, this.#remaining);
  }

  /** Before any session-key packet has shown a known version, nothing yet says that the stream is OpenPGP at all. */
  #unknown(offset: number, fault: string): Error {
    return this.#phase === BEFORE_KEYS ? notOpenPgp(offset, fault) : malformed(offset, fault);
  }

  #endPart(): void {
    if (this.#partial) {
      this.#length.expectNew();
      this.#step = AT_LENGTH;
      this.#continued = true;
      return;
    }
    if (isDataPacket(this.#type)) this.#phase = AFTER_DATA;
    else if (isKeyPacket(this.#type)) this.#phase = AFTER_KEYS;
    this.#step = AT_TYPE;
    this.#type = 0;
  }

  encode(writer: StateWriter): void {
    writer.byte(this.#phase).byte(this.#step);
    if (this.#step === AT_TYPE) return;
    writer.byte(this.#type);
    if (this.#step === AT_LENGTH) {
      writer.flag(this.#continued);
      this.#length.encode(writer);
      return;
    }
    writer.flag(this.#partial).uint(this.#remaining);
    if (this.#step === AT_BODY) return;
    writer.byte(this.#seen);
    if (this.#type === PKESK) writer.bytes(this.#inspected.subarray(0, this.#seen));
  }

  /**
   * Reads what {@link OpenPgpWalker.encode} wrote.
   * @param offset bytes of the whole stream so far
   * @param armored whether the stream is armored, so that offsets run ahead of the message's bytes
   * @throws FramingStateError for a state that no message leads to
   */
  static decode(reader: StateReader, acceptance: Acceptance, offset: number, armored: boolean): OpenPgpWalker {
    const walker = new OpenPgpWalker(acceptance);
    walker.#phase = reader.byte(AFTER_DATA);
    walker.#step = reader.byte(AT_BODY);
    if (walker.#step !== AT_TYPE) walker.#decodePacket(reader);
    walker.#requirePossible(offset, armored);
    return walker;
  }

  #decodePacket(reader: StateReader): void {
    this.#type = reader.byte(PADDING);
    requirePossible(isMessagePacket(this.#type) && this.#type !== UNPROTECTED);
    if (this.#step === AT_LENGTH) {
      this.#continued = reader.flag();
      this.#length.decode(reader);
      return;
    }
    this.#partial = reader.flag();
    this.#remaining = reader.uint(LENGTH_MAX);
    if (this.#step === AT_BODY) return;
    this.#seen = reader.byte(RECIPIENT_BYTES - 1);
    if (this.#type === PKESK) this.#inspected.set(reader.bytes(this.#seen));
  }

  #requirePossible(offset: number, armored: boolean): void {
    const data = isDataPacket(this.#type);
    // Keys come first, data once and after them.
    requirePossible(!data || this.#phase === AFTER_KEYS);
    requirePossible(!isKeyPacket(this.#type) || this.#phase !== AFTER_DATA);
    requirePossible(this.payloadStarted || offset <= HEADER_LIMIT);
    const shortest = SHORTEST[this.#phase]!;
    if (this.#step === AT_TYPE) {
      requirePossible(offset >= (armored ? 0 : 1) && offset >= shortest);
      return;
    }
    if (this.#step === AT_LENGTH) {
      requirePossible(!this.#continued || data);
      requirePossible(offset >= shortest + (this.#continued ? 2 + FIRST_PARTIAL_MIN : 1));
      return;
    }
    requirePossible(this.#remaining > 0);
    requirePossible(!this.#partial || (data && this.#remaining <= PARTIAL_MAX));
    if (!this.payloadStarted) requirePossible(this.#remaining <= (armored ? HEADER_LIMIT : HEADER_LIMIT - offset));
    // Where the packet ends, it was a whole one: its header of at least two octets, and its body.
    requirePossible(offset >= shortest + 2 + this.#seen);
    const body = this.#partial ? FIRST_PARTIAL_MIN : minimumBody(this.#type);
    requirePossible(offset + this.#remaining >= shortest + 2 + body);
    if (this.#step === AT_INSPECTED) this.#requireInspectable();
    else requirePossible(this.#type !== MARKER);
  }

  #requireInspectable(): void {
    const size = this.#remaining + this.#seen;
    requirePossible(size >= (this.#partial ? FIRST_PARTIAL_MIN : minimumBody(this.#type)));
    if (this.#type === PKESK) {
      const field = recipientField(this.#inspected, this.#seen);
      requirePossible(typeof field !== "string" && size >= field.minimum && this.#seen < field.length);
    } else if (this.#type === MARKER) {
      requirePossible(size === MARKER_TEXT.length);
    } else {
      requirePossible(this.#type !== PADDING && this.#seen === 0);
    }
  }
}
