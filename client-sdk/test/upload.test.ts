import { zstdDecompressSync } from "node:zlib";
import { ContentEncoding } from "@strongroom/gen/strongroom/v1/resources_pb";
import { MAX_FRAMING_STATE_BYTES } from "@strongroom/protocol/limits";
import test from "ava";
import { generateAgeKey } from "../src/encryption/age.ts";
import { decryptionStage } from "../src/encryption/stages.ts";
import type { UploadProgress } from "../src/upload/upload.ts";
import { chunked, ciphertext, collect, noise, text } from "./support/bytes.ts";
import { clientOf } from "./support/client.ts";
import { MIB } from "./support/server.ts";
import { ask, pause, serve } from "./support/upload.ts";

test("a dump goes through compression and encryption into segments, and becomes a version", async (t) => {
  const server = await serve(t);
  const { recipient, identity } = await generateAgeKey();
  const dump = text(8 * MIB);
  const seen: UploadProgress[] = [];
  const result = await clientOf(server).upload({
    collection: "pg",
    source: chunked(dump),
    encryption: { kind: "age", recipients: [recipient] },
    filename: "x.zst.age",
    labels: { env: "test" },
    clientMetadata: { host: "h" },
    onProgress: (progress) => seen.push(progress),
  });
  const stored = server.versions[0]!;
  t.is(result.version.number, 1n);
  t.deepEqual(result.removedNumbers, [1n]);
  t.is(result.sourceBytes, BigInt(dump.length));
  t.is(result.resumes, 0);
  t.true(result.compressed);
  t.is(stored.version.contentEncoding, ContentEncoding.ZSTD);
  t.deepEqual(stored.version.labels, { env: "test" });
  const request = [...server.uploads.values()][0]!.request;
  t.is(request.filename, "x.zst.age");
  t.deepEqual(request.clientMetadata, { host: "h" });
  t.regex(request.requestId, /^[0-9a-f-]{36}$/);
  const decrypt = decryptionStage({ kind: "age", identities: [identity] });
  const packed = await collect(decrypt(chunked(stored.bytes), new AbortController().signal));
  t.true(zstdDecompressSync(packed).equals(dump));
  t.deepEqual(
    seen.filter(({ uploadId, remainingBytes }) => (uploadId === "") !== (remainingBytes === undefined)),
    [],
    "what is left is not known before the server has said it, and never 0 by mistake",
  );
  t.false(seen.some(({ remainingBytes }) => remainingBytes === 0n));
  const last = seen.at(-1)!;
  t.is(last.acknowledgedBytes, BigInt(stored.bytes.length));
  t.is(last.sourceBytes, BigInt(dump.length));
  t.is(last.remainingBytes, 1000n);
  t.is(last.uploadId, stored.version.versionId);
  t.is(server.aborted.length, 0);
});

test("ciphertext is stored byte for byte, in segments of the server's size and chunks within its limit", async (t) => {
  const server = await serve(t, { segmentSize: MIB, maxChunkSize: 300_000 });
  const bytes = ciphertext(3 * MIB + 5);
  const result = await clientOf(server).upload(ask(chunked(bytes), { compression: "zstd" }));
  t.true(server.versions[0]!.bytes.equals(bytes));
  t.false(result.compressed, "ciphertext is never compressed");
  const { segments } = [...server.uploads.values()][0]!;
  t.deepEqual(
    [0, 1, 2, 3].map((index) => segments.get(index)!.bytes.length),
    [MIB, MIB, MIB, bytes.length - 3 * MIB],
  );
  t.true([...segments.values()].every((segment) => segment.framingIn.length <= MAX_FRAMING_STATE_BYTES));
});

test("noise is not compressed", async (t) => {
  const server = await serve(t);
  const { recipient } = await generateAgeKey();
  const options = ask(chunked(noise(2 * MIB)), {
    encryption: { kind: "age", recipients: [recipient], program: "library" },
  });
  t.false((await clientOf(server).upload(options)).compressed);
  t.is(server.versions[0]!.version.contentEncoding, ContentEncoding.NONE);
});

test("several segments are under way at once, up to the number asked for, on the upload's connection", async (t) => {
  for (const parallel of [1, 3]) {
    let release: () => void = () => undefined;
    const full = new Promise<void>((resolve) => {
      release = resolve;
    });
    const server = await serve(t, {
      segmentSize: 200_000,
      onSegmentStored: async () => {
        if (server.mostParallel >= parallel) release();
        await full;
      },
    });
    const client = clientOf(server);
    await client.upload(ask(chunked(ciphertext(3 * MIB)), { parallel }));
    t.is(server.mostParallel, parallel);
    t.is(server.connections, 1);
    client.close();
  }
});

test("the source is read no further than memory allows", async (t) => {
  let read = 0;
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const bytes = ciphertext(3 * MIB);
  async function* source(): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunked(bytes, 10_000)) {
      read += chunk.length;
      yield chunk;
    }
  }
  const server = await serve(t, { segmentSize: 100_000, onSegmentStored: () => held });
  const uploading = clientOf(server).upload(ask(source(), { parallel: 2, memoryLimit: 300_000 }));
  while (server.count("WriteSegment") < 2) await pause(5);
  await pause(100);
  t.true(read <= 3 * 100_000 + 10_000, `${read} bytes were read`);
  release();
  await uploading;
  t.true(server.versions[0]!.bytes.equals(bytes));
});
