/**
 * Integrity-protected data of version 1 (RFC 9580 section 5.13.1) with node:crypto: AES in CFB, and a SHA-1 over
 * everything at the end.
 *
 * The library could do it, but it reads what it decrypted before it knows whether the key was right, and waits forever
 * for the end of some packets that no sender wrote.
 */
import { createDecipheriv, createHash } from "node:crypto";
import { ByteReader } from "./byte-reader.ts";
import { decryptionFailure } from "./options.ts";
import { adviseGpg } from "./programs.ts";

/** A key that may open the data. */
export interface SessionKey {
  /** The key. */
  readonly data: Uint8Array;
  /** Name of the cipher as the library has it: `aes256`. */
  readonly algorithm: string;
}

/** Ciphers that node:crypto has: their names there, and the bytes of a block. */
const CIPHERS: ReadonlyMap<string, readonly [name: string, block: number]> = new Map([
  ["aes128", ["aes-128-cfb", 16]],
  ["aes192", ["aes-192-cfb", 16]],
  ["aes256", ["aes-256-cfb", 16]],
  ["tripledes", ["des-ede3-cfb", 8]],
]);

/** The packet at the end: its header of two octets, and a SHA-1. */
const END = 22;

/**
 * Decrypts a body, version octet included. Bytes are put out before their end has shown that they are authentic.
 *
 * @param keys - those that may fit; the first bytes tell which does
 * @throws DecryptionError when none fits, or at the end when the data was changed or cut
 */
export async function* openProtectedData(
  body: AsyncIterable<Uint8Array>,
  keys: readonly SessionKey[],
): AsyncGenerator<Uint8Array> {
  const reader = new ByteReader(body);
  try {
    if ((await reader.byte()) !== 1) throw decryptionFailure("The encrypted data is of an unknown version.");
    const decipher = await fitting(reader, keys);
    const hash = createHash("sha1");
    let held = Buffer.alloc(0);
    let prefix = decipher.block + 2;
    for await (const chunk of reader.rest()) {
      const plain = Buffer.concat([held, decipher.update(chunk)]);
      const known = Math.max(0, plain.length - END);
      held = plain.subarray(known);
      hash.update(plain.subarray(0, known));
      const skipped = Math.min(prefix, known);
      prefix -= skipped;
      if (known > skipped) yield plain.subarray(skipped, known);
    }
    if (held.length < END || prefix > 0) throw decryptionFailure("The encrypted data is cut short.");
    const digest = hash.update(held.subarray(0, 2)).digest();
    if (held[0] !== 0xd3 || held[1] !== 0x14 || !digest.equals(held.subarray(2))) {
      throw decryptionFailure(
        "The message was changed or cut short: its digest does not fit. Nothing of it may be used.",
      );
    }
  } finally {
    reader.close();
  }
}

interface Decipher {
  readonly block: number;
  update(chunk: Uint8Array): Buffer;
}

/** Chooses by the prefix: random bytes of one block, whose last two are repeated (RFC 9580 section 5.13.1). */
async function fitting(reader: ByteReader, keys: readonly SessionKey[]): Promise<Decipher> {
  const unknown: string[] = [];
  for (const { data, algorithm } of keys) {
    const cipher = CIPHERS.get(algorithm);
    if (cipher === undefined) {
      unknown.push(algorithm);
      continue;
    }
    const [name, block] = cipher;
    const make = () => createDecipheriv(name, data, Buffer.alloc(block));
    const prefix = make().update(await reader.peek(block + 2));
    if (prefix[block - 2] !== prefix[block] || prefix[block - 1] !== prefix[block + 1]) continue;
    const decipher = make();
    return { block, update: (chunk) => decipher.update(chunk) };
  }
  if (unknown.length > 0) {
    throw decryptionFailure(`The data is encrypted with ${unknown[0]}, which only gpg opens: ${adviseGpg()}.`);
  }
  throw decryptionFailure("The key or the passphrase does not open the version.");
}
