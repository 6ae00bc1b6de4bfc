/** What is inside an encrypted OpenPGP message: literal data, mostly compressed or signed (RFC 9580 section 10.3). */
import { createInflate, createInflateRaw } from "node:zlib";
import { readMessage } from "openpgp";
import { fromWebStream, through, toWebStream } from "../streams.ts";
import { ByteReader } from "./byte-reader.ts";
import { decryptionFailure } from "./options.ts";
import { PACKET, packetBody, packetHeader } from "./packets.ts";

/** Compressed packets within each other; a sender has no reason for a second. */
const DEEPEST = 4;

/**
 * Packets that say nothing of the dump: signatures, which nobody asked to be checked, and fillers, which senders put
 * where they like.
 */
const PASSED_OVER: ReadonlySet<number> = new Set<number>([
  PACKET.signature,
  PACKET.onePassSignature,
  PACKET.marker,
  PACKET.trust,
  PACKET.padding,
]);

/** Types from here on are not critical: who does not know them leaves them out (RFC 9580 section 4.3). */
const NOT_CRITICAL = 40;

/**
 * The literal data of a decrypted message. Everything is read to its end, so that whoever decrypts sees the end as
 * well.
 *
 * @throws DecryptionError when there is none, or more than one
 */
export async function* literalData(source: AsyncIterable<Uint8Array>, depth = 0): AsyncGenerator<Uint8Array> {
  const reader = new ByteReader(source);
  let found = false;
  try {
    for (let first = await reader.byte(); first !== undefined; first = await reader.byte()) {
      const header = packetHeader(first);
      if (header === undefined) throw notAMessage();
      const body = kept(packetBody(reader, header));
      const { type } = header;
      if (type === PACKET.literal || type === PACKET.compressed) {
        if (found) throw decryptionFailure("The message holds more than one dump.");
        found = true;
        if (type === PACKET.literal) yield* literal(body);
        else if (depth < DEEPEST) yield* decompressed(body, depth);
        else throw decryptionFailure("The message is compressed more than four times.");
        for await (const _ of body);
      } else if (PASSED_OVER.has(type) || type >= NOT_CRITICAL) {
        for await (const _ of body);
      } else if (
        type === PACKET.protectedData ||
        type === PACKET.publicKeySession ||
        type === PACKET.passphraseSession
      ) {
        throw decryptionFailure(
          "The message is encrypted twice: another encrypted message is inside. Download it, and decrypt it by hand.",
        );
      } else throw notAMessage();
    }
    if (!found) throw decryptionFailure("The message holds no dump.");
  } finally {
    reader.close();
  }
}

/** The same stream, which is not ended by a reader who leaves it: the rest of it can still be read. */
function kept(source: AsyncGenerator<Uint8Array>): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => ({ next: () => source.next() }) };
}

function notAMessage(): Error {
  return decryptionFailure(
    "What was decrypted is no OpenPGP message: the key or the passphrase is wrong, or the message was changed.",
  );
}

async function* literal(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = new ByteReader(body);
  const [format, nameLength] = (await reader.take(2)) ?? [];
  if (format === undefined || nameLength === undefined || (await reader.take(nameLength + 4)) === undefined)
    throw notAMessage();
  // Text was given the line ends of the network when it was encrypted (`gpg --textmode`).
  const isText = format === 0x74 || format === 0x75;
  yield* isText ? withLineFeeds(reader.rest()) : reader.rest();
}

/** Turns CR LF into LF. */
async function* withLineFeeds(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let held = false;
  for await (const chunk of source) {
    const bytes: Uint8Array = held ? Buffer.concat([Buffer.of(0x0d), chunk]) : chunk;
    held = bytes[bytes.length - 1] === 0x0d;
    const end = held ? bytes.length - 1 : bytes.length;
    const out = Buffer.allocUnsafe(end);
    let length = 0;
    for (let at = 0; at < end; at++) {
      if (bytes[at] !== 0x0d || bytes[at + 1] !== 0x0a) out[length++] = bytes[at]!;
    }
    if (length > 0) yield out.subarray(0, length);
  }
  if (held) yield Buffer.of(0x0d);
}

async function* decompressed(body: AsyncIterable<Uint8Array>, depth: number): AsyncGenerator<Uint8Array> {
  const reader = new ByteReader(body);
  const algorithm = await reader.byte();
  const failure = (cause: unknown): Error =>
    decryptionFailure(
      `What was decrypted cannot be decompressed: ${cause instanceof Error ? cause.message : String(cause)}.`,
      cause,
    );
  if (algorithm === 0) yield* literalData(reader.rest(), depth + 1);
  else if (algorithm === 1) yield* literalData(through(reader.rest(), createInflateRaw(), failure, true), depth + 1);
  else if (algorithm === 2) yield* literalData(through(reader.rest(), createInflate(), failure, true), depth + 1);
  else if (algorithm === 3) yield* bzipped(reader.rest());
  else throw decryptionFailure(`The message is compressed with an unknown algorithm (${algorithm}).`);
}

/** bzip2, which Node does not have, with the library. */
async function* bzipped(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  async function* packet(): AsyncGenerator<Uint8Array> {
    // An old header without a length: the packet goes to the end of the stream.
    yield Uint8Array.of(0xa3, 3);
    yield* source;
  }
  const message = await readMessage({ binaryMessage: toWebStream(packet()) as never });
  const data = message.getLiteralData() as unknown as ReadableStream<Uint8Array> | null;
  if (data === null) throw decryptionFailure("The message holds no dump.");
  yield* fromWebStream(data, new AbortController().signal);
}
