/**
 * The beginning of an encrypted OpenPGP message (RFC 9580 section 10.3): its session-key packets and what kind of data
 * follows. It decides which program can open the message, before one is started.
 */
import { ByteReader } from "./byte-reader.ts";
import { decryptionFailure } from "./options.ts";
import { PACKET, type PacketHeader, packetBody, packetHeader } from "./packets.ts";
import { isArmored, unarmor } from "./unarmor.ts";

/** Bytes within which the session-key packets must end; the server takes no longer ones either. */
const HEAD_LIMIT = 128 * 1024;

/** White space before armor, at most this much, and the dashes; the server takes no more either. */
const ARMOR_PEEK = 1024 + 16;

/**
 * Bytes of the data that are looked at: the longest header, and the fixed fields of its versions with some of what
 * follows.
 */
const DATA_PEEK = 5 + 64;

/** A packet that holds the session key. */
export interface SessionKeyPacket {
  /** To a public key, or to a passphrase. */
  readonly kind: "key" | "passphrase";
  /** First octet of its body. */
  readonly version: number;
  /** Algorithm of the public key (RFC 9580 section 9.1), or way from the passphrase to the key (S2K, section 3.7.1). */
  readonly algorithm: number;
  /** Its body. */
  readonly body: Uint8Array;
}

/** The packet of encrypted data, as far as its first bytes tell. */
export interface DataPacket {
  /** 18 (RFC 9580) or 20 (LibrePGP). */
  readonly type: number;
  /** First octet of its body: 1 is without AEAD in packet 18. */
  readonly version: number;
  /** The first bytes of its body. */
  readonly head: Uint8Array;
}

/** A step that decrypts a message whose beginning was read. */
export type MessageStage = (message: OpenPgpMessage, signal: AbortSignal) => AsyncIterable<Uint8Array>;

/** An encrypted message that is read up to its data. */
export class OpenPgpMessage {
  /** The session-key packets, in their order. */
  readonly keys: readonly SessionKeyPacket[];
  /** The data. */
  readonly data: DataPacket;
  readonly #header: PacketHeader;
  readonly #firstOctet: number;
  readonly #reader: ByteReader;

  private constructor(
    keys: readonly SessionKeyPacket[],
    data: DataPacket,
    rest: { header: PacketHeader; firstOctet: number; reader: ByteReader },
  ) {
    this.keys = keys;
    this.data = data;
    this.#header = rest.header;
    this.#firstOctet = rest.firstOctet;
    this.#reader = rest.reader;
  }

  /**
   * Reads up to the data, binary or armored.
   * @throws DecryptionError when there is no such message
   */
  static async read(source: AsyncIterable<Uint8Array>): Promise<OpenPgpMessage> {
    const outer = new ByteReader(source);
    const armored = isArmored(await outer.peek(ARMOR_PEEK));
    const reader = armored ? new ByteReader(unarmor(outer.rest())) : outer;
    const keys: SessionKeyPacket[] = [];
    for (let size = 0; size < HEAD_LIMIT; ) {
      const firstOctet = await reader.byte();
      const header = firstOctet === undefined ? undefined : packetHeader(firstOctet);
      if (firstOctet === undefined || header === undefined) {
        throw decryptionFailure("Expected an encrypted OpenPGP message, but this is none.");
      }
      if (header.type === PACKET.protectedData || header.type === PACKET.aeadData) {
        const head = dataHead(await reader.peek(DATA_PEEK), header);
        const data = { type: header.type, version: head[0] ?? 0, head };
        return new OpenPgpMessage(keys, data, { header, firstOctet, reader });
      }
      const chunks: Uint8Array[] = [];
      for await (const part of packetBody(reader, header)) {
        size += part.length;
        if (size > HEAD_LIMIT) break;
        chunks.push(part);
      }
      size += 2;
      const body = Buffer.concat(chunks);
      if (header.type === PACKET.publicKeySession) keys.push(toKey(body));
      else if (header.type === PACKET.passphraseSession) keys.push(toPassphrase(body));
      else if (header.type !== PACKET.marker && header.type !== PACKET.padding) {
        throw decryptionFailure(
          `Expected an encrypted OpenPGP message, but it has packet ${header.type} before its data.`,
        );
      }
    }
    throw decryptionFailure(`The session-key packets have more than ${HEAD_LIMIT} bytes.`);
  }

  /** Whether there is a packet of this kind. */
  has(kind: SessionKeyPacket["kind"]): boolean {
    return this.keys.some((packet) => packet.kind === kind);
  }

  /**
   * The message, binary: fillers left out, and packets to keys before those to passphrases. gpg asks for the passphrase
   * of whatever comes first, and gives up where there is none.
   * @param withPassphrases false leaves the packets to passphrases out, where others are there
   */
  async *forGpg(withPassphrases: boolean): AsyncGenerator<Uint8Array> {
    const toKeys = this.keys.filter(({ kind }) => kind === "key");
    const toPassphrases = this.keys.filter(({ kind }) => kind === "passphrase");
    const wanted = withPassphrases || toKeys.length === 0 ? [...toKeys, ...toPassphrases] : toKeys;
    yield* this.#with(wanted);
  }

  /** The message, binary, without fillers. */
  whole(): AsyncGenerator<Uint8Array> {
    return this.#with(this.keys);
  }

  async *#with(keys: readonly SessionKeyPacket[]): AsyncGenerator<Uint8Array> {
    try {
      yield Buffer.concat([...keys.map(encodedKey), Buffer.of(this.#firstOctet)]);
      yield* this.#reader.rest();
    } finally {
      this.close();
    }
  }

  /** The session-key packets, and so much of the data that a library takes it for a message. */
  stub(): Uint8Array {
    return Buffer.concat([...this.keys.map(encodedKey), encoded(this.data.type, this.data.head)]);
  }

  /** The body of the data packet; what follows the packet is read, and left out. */
  async *body(): AsyncGenerator<Uint8Array> {
    try {
      yield* packetBody(this.#reader, this.#header);
      while ((await this.#reader.some()) !== undefined);
    } finally {
      this.close();
    }
  }

  /** Ends the reading. */
  close(): void {
    this.#reader.close();
  }
}

/** The first bytes of a body, from the bytes after the first octet of its packet. */
function dataHead(bytes: Uint8Array, { lengthOctets }: PacketHeader): Uint8Array {
  const first = bytes[0] ?? 0;
  const skipped = lengthOctets === "new" ? (first < 192 ? 1 : first < 224 ? 2 : first < 255 ? 1 : 5) : lengthOctets;
  const partial = lengthOctets === "new" && first < 192 ? first : 64;
  return bytes.subarray(skipped, skipped + Math.min(64, partial));
}

function toKey(body: Uint8Array): SessionKeyPacket {
  const version = body[0] ?? 0;
  // Version 6 has a length, and that much of a version and a fingerprint, where version 3 has a key id.
  const at = version === 6 ? 2 + (body[1] ?? 0) : 9;
  return { kind: "key", version, algorithm: body[at] ?? 0, body };
}

function toPassphrase(body: Uint8Array): SessionKeyPacket {
  const version = body[0] ?? 0;
  // Version 4: cipher, S2K. Version 5: cipher, AEAD mode, S2K. Version 6: count, cipher, AEAD mode, count, S2K.
  const at = version === 4 ? 2 : version === 5 ? 3 : 5;
  return { kind: "passphrase", version, algorithm: body[at] ?? 0, body };
}

function encodedKey({ kind, body }: SessionKeyPacket): Buffer {
  return encoded(kind === "key" ? PACKET.publicKeySession : PACKET.passphraseSession, body);
}

function encoded(type: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(6, 0xff);
  header[0] = 0xc0 | type;
  header.writeUInt32BE(body.length, 2);
  return Buffer.concat([header, body]);
}
