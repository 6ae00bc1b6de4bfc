import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { deflateRawSync, deflateSync } from "node:zlib";
import { encryptSessionKey, readKey } from "openpgp";

/** A packet with a new header and a length of five octets. */
export function packet(type: number, ...body: (Uint8Array | string | number)[]): Buffer {
  const content = Buffer.concat(
    body.map((part) =>
      typeof part === "number" ? Buffer.of(part) : typeof part === "string" ? Buffer.from(part) : part,
    ),
  );
  const header = Buffer.alloc(6, 0xff);
  header[0] = 0xc0 | type;
  header.writeUInt32BE(content.length, 2);
  return Buffer.concat([header, content]);
}

/** A literal packet (RFC 9580 section 5.9): format `b`, or `t` for text, without name and date. */
export function literal(content: Uint8Array | string, format = "b"): Buffer {
  return packet(11, format, 0, Buffer.alloc(4), content);
}

/** A compressed packet: 1 is ZIP, 2 is ZLIB. */
export function compressed(algorithm: 1 | 2, content: Uint8Array): Buffer {
  return packet(8, algorithm, algorithm === 1 ? deflateRawSync(content) : deflateSync(content));
}

/** What `sq encrypt` makes by default (`--compression pad`): data that is not compressed, and bytes after its end. */
export function paddedAsBySq(content: Uint8Array, size: number): Buffer {
  return packet(8, 1, deflateRawSync(content, { level: 0 }), randomBytes(size));
}

/** Padding of random bytes (RFC 9580 section 5.14). */
export function padding(size: number): Buffer {
  return packet(21, randomBytes(size));
}

/** What may be done to a message. */
export interface Wrapping {
  /** Put before and after the data packet. */
  readonly before?: Uint8Array;
  readonly after?: Uint8Array;
  /** Whether the digest at the end is a wrong one. */
  readonly wrongDigest?: boolean;
  /** Whether the data is LibrePGP's packet 20 with AES-256 in OCB. */
  readonly ocb?: boolean;
}

/** An encrypted message (packet 18, version 1, AES-256) to a key, whose content is given as it is. */
export async function messageTo(publicKey: string, content: Uint8Array, wrapping: Wrapping = {}): Promise<Buffer> {
  const { before = Buffer.alloc(0), after = Buffer.alloc(0), wrongDigest = false, ocb = false } = wrapping;
  const key = randomBytes(32);
  const keyPacket = (await encryptSessionKey({
    data: new Uint8Array(key),
    algorithm: "aes256",
    encryptionKeys: await readKey({ armoredKey: publicKey }),
    format: "binary",
  })) as Uint8Array;
  if (ocb) return Buffer.concat([keyPacket, before, ocbData(key, content), after]);
  const prefix = randomBytes(16);
  const plain = Buffer.concat([prefix, prefix.subarray(14), content, Buffer.of(0xd3, 0x14)]);
  const digest = createHash("sha1").update(plain).digest();
  if (wrongDigest) digest[3]! ^= 1;
  const cipher = createCipheriv("aes-256-cfb", key, Buffer.alloc(16));
  const data = packet(18, 1, cipher.update(plain), cipher.update(digest));
  return Buffer.concat([keyPacket, before, data, after]);
}

/** Packet 20 (draft-koch-librepgp section 5.16): chunks of 64 bytes, and a tag over the whole. */
function ocbData(key: Uint8Array, content: Uint8Array): Buffer {
  const head = Buffer.of(1, 9, 2, 0);
  const start = randomBytes(15);
  const uint64 = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return bytes;
  };
  const seal = (index: number, bytes: Uint8Array, total?: number) => {
    const nonce = Buffer.from(start);
    for (const [at, value] of uint64(index).entries()) nonce[7 + at]! ^= value;
    const cipher = createCipheriv("aes-256-ocb", key, nonce, { authTagLength: 16 });
    cipher.setAAD(
      Buffer.concat([Buffer.of(0xd4), head, uint64(index), ...(total === undefined ? [] : [uint64(total)])]),
    );
    const sealed = [cipher.update(bytes), cipher.final(), cipher.getAuthTag()];
    return Buffer.concat(sealed);
  };
  const chunks: Buffer[] = [];
  for (let at = 0; at < content.length; at += 64) chunks.push(seal(chunks.length, content.subarray(at, at + 64)));
  return packet(20, head, start, ...chunks, seal(chunks.length, Buffer.alloc(0), content.length));
}
