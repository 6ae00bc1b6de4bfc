import { randomBytes } from "node:crypto";

const MIB = 1024 * 1024;

/** A session-key packet of OpenPGP (RFC 9580, section 5.1), with nothing real in it. */
const SESSION_KEY = Buffer.from([0xc1, 14, 3, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 9, 1, 0xff]);

/**
 * An OpenPGP message of about this many bytes, as fast as memory allows: one encrypted packet in partial lengths of 8
 * KiB, as `gpg` writes them to a pipe, over the same random bytes again and again. Measures everything but encryption.
 */
export async function* syntheticMessage(bytes: number): AsyncGenerator<Uint8Array> {
  // 0xed is a partial length of 2^13 bytes.
  const pieces = Array.from({ length: 128 }, () => Buffer.concat([Buffer.of(0xed), randomBytes(8192)]));
  const block = Buffer.concat(pieces);
  const first = Buffer.from(block);
  first[1] = 1;
  yield SESSION_KEY;
  yield Buffer.of(0xd2);
  yield first;
  for (let sent = MIB; sent < bytes; sent += MIB) yield block;
  // The last part has a plain length.
  yield Buffer.concat([Buffer.of(100), randomBytes(100)]);
}
