import { createHash, randomBytes } from "node:crypto";
import { FramingMachine } from "@strongroom/framing";

/** Bytes of the session-key packet that {@link openpgpMessage} begins with. */
const SESSION_KEY_PACKET = Uint8Array.of(0xc1, 14, 3, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 9, 1, 0xff);

/**
 * A message of exactly `size` bytes with the structure of OpenPGP (RFC 9580): one session-key packet and one
 * integrity-protected packet with a five-octet length. The bytes inside are random; nobody can open it, as the server
 * cannot open real ones.
 */
export function openpgpMessage(size: number): Uint8Array {
  const head = SESSION_KEY_PACKET.length + 6;
  const message = randomBytes(size);
  message.set(SESSION_KEY_PACKET);
  message[SESSION_KEY_PACKET.length] = 0xd2;
  message[SESSION_KEY_PACKET.length + 1] = 0xff;
  message.writeUInt32BE(size - head, SESSION_KEY_PACKET.length + 2);
  message[head] = 1;
  return new Uint8Array(message.buffer, message.byteOffset, size);
}

/** A segment ready to be announced. */
export interface TestSegment {
  readonly index: number;
  readonly size: bigint;
  readonly sha256: Uint8Array;
  readonly framingIn: Uint8Array;
  readonly bytes: Uint8Array;
}

/** SHA-256 as bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/**
 * Cuts a message into segments, each with the framing state it starts in. A message that is no ciphertext gets the
 * initial state everywhere.
 */
export function cutSegments(message: Uint8Array, segmentSize: number): TestSegment[] {
  const machine = new FramingMachine({ formats: ["openpgp", "age"] });
  let alive = true;
  const segments: TestSegment[] = [];
  for (let at = 0; at < message.length; at += segmentSize) {
    const bytes = message.subarray(at, at + segmentSize);
    const framingIn = alive ? machine.encodeState() : segments[0]!.framingIn;
    try {
      if (alive) machine.push(bytes);
    } catch {
      alive = false;
    }
    segments.push({ index: segments.length, size: BigInt(bytes.length), sha256: sha256(bytes), framingIn, bytes });
  }
  return segments;
}

/** The digest a commit states. */
export function compositeOf(segments: readonly TestSegment[]): Uint8Array {
  const hash = createHash("sha256");
  for (const segment of segments) hash.update(segment.sha256);
  return new Uint8Array(hash.digest());
}

/** Bytes as a stream of chunks. */
export async function* chunked(bytes: Uint8Array, chunkSize = 256 * 1024): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkSize) yield bytes.subarray(at, at + chunkSize);
}
