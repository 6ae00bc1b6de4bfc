import { zstdCompressSync } from "node:zlib";
import { Code } from "@connectrpc/connect";
import { ContentEncoding, type Version } from "@strongroom/gen/strongroom/v1/resources_pb";
import test, { type ExecutionContext } from "ava";
import type { DownloadOptions, DownloadProgress } from "../src/download/download.ts";
import { generateAgeKey } from "../src/encryption/age.ts";
import { generateOpenPgpKey } from "../src/encryption/openpgp-library.ts";
import type { Decryption } from "../src/encryption/options.ts";
import { encryptionStage } from "../src/encryption/stages.ts";
import type { IntegrityError } from "../src/errors.ts";
import { chunked, collect, noise, text } from "./support/bytes.ts";
import { clientOf } from "./support/client.ts";
import { FakeServer, MIB, refusal, type ServerOptions } from "./support/server.ts";

const never = new AbortController().signal;

async function serve(t: ExecutionContext, options: ServerOptions = {}): Promise<FakeServer> {
  const server = await FakeServer.start({ segmentSize: 500_000, ...options });
  t.teardown(() => server.stop());
  return server;
}

class Sink {
  readonly #chunks: Uint8Array[] = [];
  readonly take = (chunk: Uint8Array): void => void this.#chunks.push(Buffer.from(chunk));
  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

function ask(sink: Sink, more: Partial<DownloadOptions> = {}): DownloadOptions {
  return { collection: "pg", sink: sink.take, ...more };
}

test("the newest version is read by its number, and verified", async (t) => {
  const server = await serve(t);
  const bytes = noise(2_300_000);
  server.publish(noise(100));
  server.publish(bytes);
  const sink = new Sink();
  const seen: DownloadProgress[] = [];
  let announced: Version | undefined;
  const result = await clientOf(server).download(
    ask(sink, {
      onVersion: (version) => {
        announced = version;
        t.is(sink.bytes.length, 0);
        // Another one becomes the newest now.
        server.publish(noise(200));
      },
      onProgress: (progress) => seen.push(progress),
    }),
  );
  t.true(sink.bytes.equals(bytes));
  t.is(result.version.number, 2n);
  t.is(announced!.number, 2n);
  t.is(result.outputBytes, BigInt(bytes.length));
  t.is(result.resumes, 0);
  t.is(server.count("ListSegmentDigests"), 3, "five digests in pages of two");
  const total = BigInt(bytes.length);
  t.deepEqual(seen.at(-1), { receivedBytes: total, totalBytes: total, outputBytes: total, resumes: 0 });
  t.is(server.connections, 1);
});

test("the bytes in the pieces in which they were received are the same; one sink is expected", async (t) => {
  const server = await serve(t);
  const bytes = noise(1_200_000);
  server.publish(bytes);
  const pieces: Uint8Array[] = [];
  let most = 0;
  const { outputBytes } = await clientOf(server).download({
    collection: "pg",
    sinkPieces: async (some) => {
      pieces.push(...some);
      most = Math.max(most, ...some.map(({ buffer }) => buffer.byteLength));
    },
  });
  // Kept, and nevertheless as they were: their memory is not used again. Nor was it copied together.
  t.deepEqual(Buffer.concat(pieces), bytes);
  t.true(most <= 128 * 1024, `memory of ${most} bytes`);
  t.is(outputBytes, 1_200_000n);
  for (const sinks of [{}, { sink: () => {}, sinkPieces: () => {} }])
    await t.throwsAsync(clientOf(server).download({ collection: "pg", ...sinks }), { message: /Expected one of sink/ });
});

test("a version by number, with a token", async (t) => {
  const server = await serve(t, { token: "x" });
  const bytes = noise(1000);
  server.publish(bytes);
  server.publish(noise(50));
  const sink = new Sink();
  await clientOf(server, { token: "x" }).download(ask(sink, { number: 1n }));
  t.true(sink.bytes.equals(bytes));
  await t.throwsAsync(clientOf(server, { token: "x" }).download(ask(sink, { number: 9n })), { name: "NotFoundError" });
  await t.throwsAsync(clientOf(server, { token: "y" }).download(ask(sink)), { name: "AuthenticationError" });
});

test("it is decrypted and decompressed as recorded, or left as it is", async (t) => {
  const server = await serve(t);
  const dump = text(3 * MIB);
  const age = await generateAgeKey();
  const pgp = await generateOpenPgpKey({ name: "Backup" });
  const encryptAge = encryptionStage({ kind: "age", recipients: [age.recipient] });
  const encryptPgp = encryptionStage({ kind: "openpgp", publicKeys: [Buffer.from(pgp.publicKey)] });
  const packed = await collect(encryptAge(chunked(zstdCompressSync(dump)), never));
  server.publish(packed, { contentEncoding: ContentEncoding.ZSTD });
  server.publish(await collect(encryptPgp(chunked(dump), never)), { contentEncoding: ContentEncoding.NONE });
  const byAge: Decryption = { kind: "age", identities: [age.identity] };
  for (const decryption of [byAge, { ...byAge, program: "library" } as Decryption]) {
    const sink = new Sink();
    await clientOf(server).download(ask(sink, { number: 1n, decryption }));
    t.true(sink.bytes.equals(dump));
  }
  for (const program of ["auto", "library"] as const) {
    const sink = new Sink();
    const decryption: Decryption = { kind: "openpgp", privateKeys: [Buffer.from(pgp.privateKey)], program };
    const result = await clientOf(server).download(ask(sink, { number: 2n, decryption }));
    t.true(sink.bytes.equals(dump));
    t.is(result.outputBytes, BigInt(dump.length));
  }
  const raw = new Sink();
  await clientOf(server).download(ask(raw, { number: 1n, decryption: { kind: "none" } }));
  t.true(raw.bytes.equals(packed));
});

test("a connection that breaks is taken up at the byte it reached", async (t) => {
  const offsets: number[] = [];
  let breaks = 0;
  const server = await serve(t, {
    onRead: async ({ offset, attempt }) => {
      if (offsets[attempt - 1] === undefined) offsets[attempt - 1] = offset;
      if (breaks < 2 && offset > offsets[attempt - 1]! + 500_000) {
        breaks += 1;
        // What was sent before has to arrive.
        await new Promise((resolve) => setTimeout(resolve, 50));
        server.dropConnections();
      }
    },
  });
  const bytes = noise(2_750_000);
  server.publish(bytes);
  const sink = new Sink();
  const result = await clientOf(server).download(ask(sink));
  t.true(sink.bytes.equals(bytes));
  t.is(result.resumes, 2);
  t.is(offsets.length, 3);
  t.true(offsets[1]! > 0 && offsets[2]! > offsets[1]!);
});

test("a server that is away for a while is waited for", async (t) => {
  let refusals = 0;
  const server = await serve(t, {
    onRead: async ({ offset }) => {
      if (offset === 1_000_000 && refusals === 0) {
        refusals = 1;
        throw refusal(Code.Unavailable, "SHUTTING_DOWN", { retryAfterMs: 30 });
      }
    },
    onCall: (method) => {
      if (method === "ReadVersion" && refusals > 0 && refusals++ < 4) {
        throw refusal(Code.Unavailable, "STORE_UNAVAILABLE");
      }
    },
  });
  const bytes = noise(2_000_000);
  server.publish(bytes);
  const sink = new Sink();
  const result = await clientOf(server).download(ask(sink));
  t.true(sink.bytes.equals(bytes));
  t.is(result.resumes, 4);
});

test("a damaged segment fails, and the sink does not end as if all were well", async (t) => {
  const server = await serve(t, {
    onRead: ({ offset, chunk }) => {
      if (offset !== 1_200_000) return undefined;
      const damaged = Buffer.from(chunk);
      damaged[7]! ^= 1;
      return damaged;
    },
  });
  server.publish(noise(2_300_000));
  const sink = new Sink();
  const error = await t.throwsAsync(clientOf(server).download(ask(sink)), {
    name: "IntegrityError",
    message: /Version 1 of pg is damaged: bytes 1000000 to 1499999/,
  });
  t.is((error as IntegrityError).metadata.segment, "2");
  t.true(sink.bytes.length < 1_500_000, "nothing after the damaged segment was put out");
});

test("damage that the decryption sees first is still called damage; a wrong key is not", async (t) => {
  let damage = true;
  const server = await serve(t, {
    segmentSize: MIB,
    onRead: ({ offset, chunk }) => {
      if (!damage || offset !== 200_000) return undefined;
      const damaged = Buffer.from(chunk);
      damaged[7]! ^= 1;
      return damaged;
    },
  });
  const { recipient, identity } = await generateAgeKey();
  const stranger = await generateAgeKey();
  const encrypt = encryptionStage({ kind: "age", recipients: [recipient] });
  server.publish(await collect(encrypt(chunked(noise(3 * MIB)), never)));
  for (const program of ["auto", "library"] as const) {
    damage = true;
    const decryption: Decryption = { kind: "age", identities: [identity], program };
    await t.throwsAsync(clientOf(server).download(ask(new Sink(), { decryption })), { name: "IntegrityError" });
    damage = false;
    const wrong: Decryption = { kind: "age", identities: [stranger.identity], program };
    await t.throwsAsync(clientOf(server).download(ask(new Sink(), { decryption: wrong })), { name: "DecryptionError" });
  }
});

test("a download that always ends at the same byte is an integrity error, not an end", async (t) => {
  const server = await serve(t, {
    onRead: ({ offset }) => (offset >= 700_000 ? "end" : undefined),
  });
  const { recipient, identity } = await generateAgeKey();
  const encrypt = encryptionStage({ kind: "age", recipients: [recipient] });
  server.publish(await collect(encrypt(chunked(noise(2 * MIB)), never)));
  const decryptions: Decryption[] = [{ kind: "none" }, { kind: "age", identities: [identity] }];
  for (const decryption of decryptions) {
    await t.throwsAsync(clientOf(server).download(ask(new Sink(), { decryption })), {
      name: "IntegrityError",
      message: /ended the download 3 times at byte 700000/,
    });
  }
});

test("bytes after the end, another version and a list that does not fit are refused", async (t) => {
  const server = await serve(t, {
    onRead: ({ offset, chunk }) => (offset >= 900_000 ? Buffer.concat([chunk, chunk]) : undefined),
  });
  server.publish(noise(1_000_000));
  await t.throwsAsync(clientOf(server).download(ask(new Sink())), { name: "IntegrityError", message: /sent more/ });

  const stored = server.versions[0]!;
  stored.digests[1] = stored.digests[0]!;
  await t.throwsAsync(clientOf(server).download(ask(new Sink())), {
    name: "IntegrityError",
    message: /has the digest/,
  });
  stored.digests.pop();
  await t.throwsAsync(clientOf(server).download(ask(new Sink())), {
    name: "IntegrityError",
    message: /lists 1 digests/,
  });
  stored.digests.push(stored.digests[0]!, stored.digests[0]!);
  await t.throwsAsync(clientOf(server).download(ask(new Sink())), { name: "IntegrityError", message: /does not fit/ });

  const other = await serve(t);
  other.publish(noise(1_000_000));
  const onVersion = (): void => {
    const { version } = other.versions[0]!;
    other.versions[0]!.version = { ...version, versionId: "another" };
  };
  await t.throwsAsync(clientOf(other).download(ask(new Sink(), { onVersion })), { name: "IntegrityError" });
  other.versions[0]!.version.segmentSizeBytes = 7n;
  await t.throwsAsync(clientOf(other).download(ask(new Sink())), { name: "IntegrityError", message: /cannot be/ });
});

test("a damaged version is not tried again", async (t) => {
  const server = await serve(t, {
    onRead: () => {
      throw refusal(Code.DataLoss, "VERSION_DAMAGED");
    },
  });
  server.publish(noise(1000));
  await t.throwsAsync(clientOf(server).download(ask(new Sink())), { name: "IntegrityError" });
  t.is(server.count("ReadVersion"), 1);
});

test("the sink sets the pace, and what it throws is thrown unchanged", async (t) => {
  let sent = 0;
  const server = await serve(t, {
    onRead: ({ chunk }) => {
      sent += chunk.length;
      return undefined;
    },
  });
  const bytes = noise(40 * MIB);
  server.publish(bytes, {}, 8 * MIB);
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let taken = 0;
  const downloading = clientOf(server).download({
    collection: "pg",
    sink: async (chunk) => {
      await held;
      taken += chunk.length;
    },
  });
  while (sent === 0) await pause(5);
  await pause(300);
  t.true(sent < 20 * MIB, `${sent} bytes were sent to a sink that takes none`);
  release();
  await downloading;
  t.is(taken, bytes.length);

  const failure = new Error("disk full");
  const sink = (): void => {
    throw failure;
  };
  t.is(await t.throwsAsync(clientOf(server).download({ collection: "pg", sink })), failure);
});

test("a sink that fails ends the download, though the server stands still", async (t) => {
  let stands = Promise.withResolvers<void>();
  const server = await serve(t, {
    onRead: ({ offset }) => {
      if (offset < 300_000) return undefined;
      stands.resolve();
      return new Promise(() => undefined);
    },
  });
  const { recipient, identity } = await generateAgeKey();
  const pgp = await generateOpenPgpKey({ name: "Backup" });
  const packed = zstdCompressSync(noise(4 * MIB));
  const contentEncoding = ContentEncoding.ZSTD;
  const byAge = encryptionStage({ kind: "age", recipients: [recipient] });
  const byPgp = encryptionStage({ kind: "openpgp", publicKeys: [Buffer.from(pgp.publicKey)] });
  server.publish(await collect(byAge(chunked(packed), never)), { contentEncoding });
  server.publish(await collect(byPgp(chunked(packed), never)), { contentEncoding });
  const failure = new Error("the command ended");
  const sink = async (): Promise<void> => {
    await stands.promise;
    throw failure;
  };
  for (const program of ["auto", "library"] as const) {
    const decryptions: Decryption[] = [
      { kind: "age", identities: [identity], program },
      { kind: "openpgp", privateKeys: [Buffer.from(pgp.privateKey)], program },
    ];
    for (const [index, decryption] of decryptions.entries()) {
      const number = BigInt(index + 1);
      stands = Promise.withResolvers();
      const downloading = clientOf(server).download({ collection: "pg", number, decryption, sink });
      t.is(await t.throwsAsync(downloading), failure);
    }
  }
});

test("an abort ends a download whose sink or server stands still", async (t) => {
  const server = await serve(t, {
    onRead: ({ offset }) => (offset >= 300_000 ? new Promise(() => undefined) : undefined),
  });
  server.publish(noise(1_000_000));
  const reason = new Error("enough");
  for (const sink of [() => undefined, () => new Promise<void>(() => undefined)]) {
    const controller = new AbortController();
    const downloading = clientOf(server).download({ collection: "pg", sink, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 150);
    t.is(await t.throwsAsync(downloading), reason);
  }
});

test("a server that stands still is asked again", async (t) => {
  const server = await serve(t, {
    onRead: ({ offset, attempt }) =>
      attempt === 1 && offset >= 300_000 ? new Promise<void>(() => undefined) : undefined,
  });
  const bytes = noise(1_000_000);
  server.publish(bytes);
  const sink = new Sink();
  const result = await clientOf(server, {}, { stallMs: 300 }).download(ask(sink));
  t.true(sink.bytes.equals(bytes));
  t.true(result.resumes >= 1);
});

test("a version that was compressed in an unknown way is refused before the first byte", async (t) => {
  const server = await serve(t);
  server.publish(noise(1000), { contentEncoding: 99 as ContentEncoding });
  const { identity } = await generateAgeKey();
  const decryption: Decryption = { kind: "age", identities: [identity] };
  await t.throwsAsync(clientOf(server).download(ask(new Sink(), { decryption })), { name: "DecryptionError" });
  t.is(server.count("ReadVersion"), 0);
});

test("a download is given up when nothing succeeds for long", async (t) => {
  const server = await serve(t, {
    onCall: (method) => {
      if (method === "ReadVersion") throw refusal(Code.Unavailable, "STORE_UNAVAILABLE");
    },
  });
  server.publish(noise(1000));
  await t.throwsAsync(clientOf(server, { giveUpAfterMs: 100 }).download(ask(new Sink())), {
    name: "UnavailableError",
    message: /ReadVersion failed \d+ times/,
  });
});

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
