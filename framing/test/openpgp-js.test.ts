import { createCipheriv, randomBytes } from "node:crypto";
import test from "ava";
import * as openpgp from "openpgp";
import { checkReal } from "./real.ts";
import { join, noise, packet, partialPacket, text, violation } from "./support.ts";

const dump = noise(70_000, 1);

/** A source that comes in pieces, so that the library writes partial lengths. */
function pieces(size: number): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= dump.length) controller.close();
      else controller.enqueue(dump.slice(at, at + size));
      at += size;
    },
  });
}

async function collect(stream: AsyncIterable<Uint8Array | string> | Uint8Array | string): Promise<Uint8Array> {
  if (typeof stream === "string") return text(stream);
  if (stream instanceof Uint8Array) return stream;
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(typeof part === "string" ? text(part) : part);
  return join(...parts);
}

const modes = {
  "integrity protected, v1": { aeadProtect: false },
  "AEAD, v2": { aeadProtect: true, v6Keys: true },
};

for (const [name, mode] of Object.entries(modes)) {
  test(`messages made by openpgp.js: ${name}`, async (t) => {
    const config = { ...mode, s2kIterationCountByte: 0 };
    const generate = async () => {
      const { publicKey, privateKey } = await openpgp.generateKey({
        type: mode.aeadProtect ? "curve25519" : "ecc",
        userIDs: [{ name: "a" }],
        format: "object",
        config,
      });
      const encryption = await publicKey.getEncryptionKey();
      return { publicKey, privateKey, fingerprint: encryption.getFingerprint(), keyId: encryption.getKeyID().toHex() };
    };
    const alice = await generate();
    const bob = await generate();
    t.is(alice.fingerprint.length, mode.aeadProtect ? 64 : 40);
    const one = { encryptionKeys: alice.publicKey, config };
    const two = { encryptionKeys: [alice.publicKey, bob.publicKey], config };

    const binary = async (source: Uint8Array | ReadableStream<Uint8Array>, options: object) => {
      const message = await openpgp.createMessage({ binary: source as Uint8Array });
      return collect((await openpgp.encrypt({ message, format: "binary", ...options })) as Uint8Array);
    };
    const armored = async (source: Uint8Array | ReadableStream<Uint8Array>, options: object) => {
      const message = await openpgp.createMessage({ binary: source as Uint8Array });
      return collect((await openpgp.encrypt({ message, format: "armored", ...options })) as string);
    };

    for (const source of [dump, dump.subarray(0, 100), new Uint8Array()]) {
      checkReal(t, await binary(source, one), "openpgp", false);
      checkReal(t, await armored(source, one), "openpgp", true);
    }
    for (const size of [100, 1_000, 8_192, 60_000]) {
      checkReal(t, await binary(pieces(size), one), "openpgp", false);
      checkReal(t, await armored(pieces(size), one), "openpgp", true);
    }
    const streamed = await binary(pieces(10_000), two);
    checkReal(t, streamed, "openpgp", false);
    checkReal(t, await binary(dump, { passwords: ["x", "y"], config }), "openpgp", false);
    checkReal(t, await binary(dump, { ...one, passwords: "x" }), "openpgp", false);
    const hidden = await binary(dump, { ...two, wildcard: true });
    checkReal(t, hidden, "openpgp", false);

    const pin = (...recipientKeyIds: string[]) => ({ formats: ["openpgp"], recipientKeyIds }) as const;
    t.is(violation(streamed, pin(alice.fingerprint, bob.keyId)), "accepted");
    t.is(violation(streamed, pin(alice.fingerprint)), "recipient-not-accepted");
    t.is(violation(hidden, pin(alice.keyId, bob.keyId)), "recipient-not-accepted");

    const signed = await openpgp.sign({
      message: await openpgp.createMessage({ binary: dump }),
      signingKeys: alice.privateKey,
      format: "binary",
      config,
    });
    t.is(violation(signed as Uint8Array), "not-ciphertext");
    t.is(violation(text(alice.publicKey.armor())), "not-ciphertext");
    t.is(violation(alice.publicKey.write() as Uint8Array), "not-ciphertext");
  });
}

test("the data of RFC 9580 without integrity protection, made by openpgp.js, is refused for that", async (t) => {
  const { privateKey } = await openpgp.generateKey({ userIDs: [{ name: "a" }], format: "object" });
  const keys = await openpgp.encryptSessionKey({
    data: randomBytes(32),
    algorithm: "aes256",
    encryptionKeys: privateKey.toPublic(),
    format: "binary",
    config: { aeadProtect: false },
  });
  t.is(violation(join(keys as Uint8Array, packet(9, noise(100, 1)))), "not-integrity-protected");
});

/**
 * A packet 20 as GnuPG 2.3 and later write it: AES-256, OCB, chunks of 4 MiB (draft-koch-librepgp, "OCB Encrypted Data
 * Packet"), which the GnuPG of the build machine cannot make.
 */
function ocbBody(key: Uint8Array, content: Uint8Array): Uint8Array {
  const head = Uint8Array.of(1, 9, 2, 16);
  const iv = randomBytes(15);
  const index = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return bytes;
  };
  const seal = (chunk: number, data: Uint8Array, length?: number) => {
    const nonce = Buffer.from(iv);
    for (const [at, byte] of index(chunk).entries()) nonce[7 + at]! ^= byte;
    const cipher = createCipheriv("aes-256-ocb", key, nonce, { authTagLength: 16 });
    cipher.setAAD(join(0xd4, head, index(chunk), length === undefined ? new Uint8Array() : index(length)), {
      plaintextLength: data.length,
    });
    return join(cipher.update(data), cipher.final(), cipher.getAuthTag());
  };
  return join(head, iv, seal(0, content), seal(1, new Uint8Array(), content.length));
}

test("packet 20 as GnuPG makes it, which openpgp.js decrypts, is accepted", async (t) => {
  const config = { aeadProtect: false };
  const { privateKey } = await openpgp.generateKey({ userIDs: [{ name: "a" }], format: "object", config });
  const key = randomBytes(32);
  const keys = await openpgp.encryptSessionKey({
    data: key,
    algorithm: "aes256",
    encryptionKeys: privateKey.toPublic(),
    format: "binary",
    config,
  });
  for (const data of [new Uint8Array(), dump.subarray(0, 10), dump]) {
    const literal = packet(11, join(text("b"), 0, new Uint8Array(4), data), "new5");
    const body = ocbBody(key, literal);
    const messages = [join(keys as Uint8Array, packet(20, body))];
    if (body.length > 8192) messages.push(join(keys as Uint8Array, partialPacket(20, body, Array(25).fill(13))));
    for (const binaryMessage of messages) {
      const message = await openpgp.readMessage({ binaryMessage });
      const decrypted = await openpgp.decrypt({ message, decryptionKeys: privateKey, format: "binary", config });
      t.deepEqual(new Uint8Array(decrypted.data as Uint8Array), data);
      checkReal(t, binaryMessage, "openpgp", false);
    }
  }
});
