/** The packets of OpenPGP (RFC 9580 section 4), read from a stream. */
import type { ByteReader } from "./byte-reader.ts";
import { decryptionFailure } from "./options.ts";

/** Types of packets that this folder knows by name (RFC 9580 section 5; 20 is LibrePGP's). */
export const PACKET = {
  publicKeySession: 1,
  signature: 2,
  passphraseSession: 3,
  onePassSignature: 4,
  compressed: 8,
  marker: 10,
  literal: 11,
  trust: 12,
  protectedData: 18,
  aeadData: 20,
  padding: 21,
} as const;

/** The header of a packet. */
export interface PacketHeader {
  /** Type of the packet. */
  readonly type: number;
  /**
   * How its body's length is written: of old packets in so many octets (0: up to the end of the stream), of new ones in
   * the form of section 4.2.1.
   */
  readonly lengthOctets: 0 | 1 | 2 | 4 | "new";
}

/** Reads what begins a packet; undefined where no packet can begin with the byte. */
export function packetHeader(value: number): PacketHeader | undefined {
  if ((value & 0x80) === 0) return undefined;
  if ((value & 0x40) !== 0) return { type: value & 0x3f, lengthOctets: "new" };
  return { type: (value >> 2) & 0x0f, lengthOctets: ([1, 2, 4, 0] as const)[value & 0x03]! };
}

/** The body of a packet, part by part; whoever reads it must read it to its end before the next packet. */
export async function* packetBody(
  reader: ByteReader,
  { type, lengthOctets }: PacketHeader,
): AsyncGenerator<Uint8Array> {
  for (let more = true; more; ) {
    let left: number;
    if (lengthOctets === "new") [left, more] = await newLength(reader, type);
    else {
      left = lengthOctets === 0 ? Number.POSITIVE_INFINITY : number(await exactly(reader, lengthOctets, type));
      more = false;
    }
    while (left > 0) {
      const part = await reader.some(left);
      if (part === undefined) {
        if (left === Number.POSITIVE_INFINITY) return;
        throw cut(type);
      }
      left -= part.length;
      yield part;
    }
  }
}

/** The length of a new packet, or of a part of it, and whether another part follows. */
async function newLength(reader: ByteReader, type: number): Promise<[length: number, more: boolean]> {
  const [first] = (await exactly(reader, 1, type)) as unknown as [number];
  if (first < 192) return [first, false];
  if (first < 224) return [((first - 192) << 8) + (await exactly(reader, 1, type))[0]! + 192, false];
  if (first < 255) return [2 ** (first & 0x1f), true];
  return [number(await exactly(reader, 4, type)), false];
}

async function exactly(reader: ByteReader, count: number, type: number): Promise<Uint8Array> {
  const bytes = await reader.take(count);
  if (bytes === undefined) throw cut(type);
  return bytes;
}

function number(bytes: Uint8Array): number {
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

function cut(type: number): Error {
  return decryptionFailure(`The OpenPGP message ends in the middle of packet ${type}.`);
}
