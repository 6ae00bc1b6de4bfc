import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import test from "ava";
import { COMPRESSION_SAMPLE_BYTES, compressed, compressionPays, decompressed } from "../src/encryption/compression.ts";
import { peek } from "../src/peek.ts";
import { chunked, collect, noise, text } from "./support/bytes.ts";

test("text is worth compressing, noise is not, nothing is not", async (t) => {
  t.true(await compressionPays([text(2 * COMPRESSION_SAMPLE_BYTES)]));
  t.true(await compressionPays([text(100), text(5000)]));
  t.false(await compressionPays([noise(2 * COMPRESSION_SAMPLE_BYTES)]));
  t.false(await compressionPays([noise(100)]));
  t.false(await compressionPays([]));
});

test("it has to save a tenth", async (t) => {
  const sample = (shareOfText: number): Uint8Array[] => [
    noise(100_000 * (1 - shareOfText)),
    Buffer.alloc(100_000 * shareOfText),
  ];
  t.true(await compressionPays(sample(0.15)));
  t.false(await compressionPays(sample(0.05)));
});

test("only the first MiB counts", async (t) => {
  t.false(await compressionPays([noise(COMPRESSION_SAMPLE_BYTES), text(COMPRESSION_SAMPLE_BYTES)]));
});

test("a peek loses nothing", async (t) => {
  const bytes = noise(300_000);
  for (const size of [0, 1, 60_000, 60_001, 299_999, 300_000, 1_000_000]) {
    const { head, ended, stream, size: length } = await peek(chunked(bytes), size);
    t.is(Buffer.concat(head).length, length);
    t.true(ended || length >= size);
    t.is(ended, size > bytes.length);
    t.true((await collect(stream)).equals(bytes));
  }
});

test("compressed and decompressed are opposites, and stock zstd", async (t) => {
  for (const bytes of [Buffer.alloc(0), text(3_000_000), noise(500_000)]) {
    const packed = await collect(compressed(chunked(bytes)));
    t.true(zstdDecompressSync(packed).equals(bytes));
    t.true((await collect(decompressed(chunked(packed)))).equals(bytes));
  }
});

test("a cut, changed or foreign stream is an error", async (t) => {
  const packed = zstdCompressSync(text(300_000));
  await t.throwsAsync(collect(decompressed(chunked(packed.subarray(0, packed.length - 5)))), {
    name: "DecryptionError",
  });
  await t.throwsAsync(collect(decompressed(chunked(text(1000)))), { name: "DecryptionError" });
  await t.throwsAsync(collect(decompressed(chunked(Buffer.alloc(0)))), { name: "DecryptionError" });
});

test("an error of the source is thrown as it is", async (t) => {
  const failure = new Error("gone");
  async function* broken(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
    yield bytes;
    throw failure;
  }
  const packed = zstdCompressSync(noise(200_000));
  t.is(await t.throwsAsync(collect(compressed(broken(text(200_000))))), failure);
  t.is(await t.throwsAsync(collect(decompressed(broken(packed.subarray(0, 150_000))))), failure);
});

test("leaving early ends the source", async (t) => {
  let ended = false;
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield noise(100_000);
    } finally {
      ended = true;
    }
  }
  for await (const _ of compressed(source())) break;
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.true(ended);
});

test("what fails or follows after the end of the compressed stream is an error too", async (t) => {
  const failure = new Error("the digest at the end does not fit");
  const packed = zstdCompressSync(text(300_000));
  for (const surplusBytes of [Buffer.from("x"), noise(20), noise(200_000)]) {
    const surplus = Buffer.concat([packed, surplusBytes]);
    for (const size of [surplus.length, 1000]) {
      await t.throwsAsync(collect(decompressed(chunked(surplus, size))), { name: "DecryptionError" });
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield* chunked(surplus, size);
        throw failure;
      }
      const error = await t.throwsAsync(collect(decompressed(broken())));
      t.true(error === failure || error!.name === "DecryptionError");
    }
  }
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield packed;
    throw failure;
  }
  t.is(await t.throwsAsync(collect(decompressed(failing()))), failure);
});

test("frames that follow each other are one dump, however they are cut", async (t) => {
  const parts = [text(20_000), Buffer.alloc(0), noise(5000), Buffer.alloc(0), text(1)];
  const packed = Buffer.concat(parts.map((part) => zstdCompressSync(part)));
  for (const size of [packed.length, 1000, 13, 1]) {
    t.true((await collect(decompressed(chunked(packed, size)))).equals(Buffer.concat(parts)), `chunks of ${size}`);
  }
  await t.throwsAsync(collect(decompressed(chunked(packed.subarray(0, packed.length - 2)))), {
    name: "DecryptionError",
  });
});

test("what a slow reader makes of the compressor's end is read back, and by a slow reader too", async (t) => {
  /** Lets everything else go first now and then. */
  async function* slowly(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of stream) {
      for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
      yield chunk;
    }
  }
  let withEmptyFrame = 0;
  for (let size = 1; size < 3_000_000; size = size * 2 + 4567) {
    for (const bytes of [noise(size), text(size)]) {
      const packed = await collect(slowly(compressed(chunked(bytes, 9000))));
      // An empty frame with a checksum: magic number, header of two bytes, one empty block, checksum.
      if (packed.lastIndexOf(Buffer.from("28b52ffd", "hex")) === packed.length - 13) withEmptyFrame++;
      t.true((await collect(slowly(decompressed(chunked(packed, 7000))))).equals(bytes), `${size} bytes`);
    }
  }
  t.log(`${withEmptyFrame} streams ended with an empty frame`);
});
