import { randomBytes } from "node:crypto";

/** Collects a stream. */
export async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A stream of the bytes, in chunks of the given size. */
export async function* chunked(bytes: Uint8Array, size = 60_000): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.subarray(offset, offset + size);
}

/** Bytes that do not compress. */
export function noise(size: number): Buffer {
  return randomBytes(size);
}

/** Bytes that do, and are not all alike. */
export function text(size: number): Buffer {
  const line = Buffer.from("INSERT INTO measurements VALUES (42, 'north', 17.25);\n");
  const bytes = Buffer.alloc(size, line);
  for (let offset = 0; offset < size; offset += 1000) bytes[offset] = offset % 251;
  return bytes;
}

/**
 * A binary OpenPGP message of at least `size` bytes: a session-key packet, and encrypted data (tag 18) with one length
 * of five octets.
 */
export function ciphertext(size: number): Buffer {
  const sessionKey = Buffer.concat([
    Buffer.from([0xc1, 0x0d, 3]),
    Buffer.alloc(8, 7),
    Buffer.from([18]),
    Buffer.alloc(3, 9),
  ]);
  const body = Buffer.concat([Buffer.from([1]), noise(Math.max(size, 48))]);
  const length = Buffer.alloc(5, 0xff);
  length.writeUInt32BE(body.length, 1);
  return Buffer.concat([sessionKey, Buffer.from([0xd2]), length, body]);
}
