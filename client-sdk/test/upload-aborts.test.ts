import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { Code } from "@connectrpc/connect";
import { FramingMachine } from "@strongroom/framing";
import { armor, Encrypter } from "age-encryption";
import test from "ava";
import { generateAgeKey } from "../src/encryption/age.ts";
import type { Encryption } from "../src/encryption/options.ts";
import type { QuotaExceededError } from "../src/errors.ts";
import type { UploadProgress } from "../src/upload/upload.ts";
import { chunked, ciphertext, noise, text } from "./support/bytes.ts";
import { clientOf } from "./support/client.ts";
import { MIB, refusal } from "./support/server.ts";
import { ask, assertAborted, none, pause, serve } from "./support/upload.ts";

test("a quota that is passed stops the segment under way, and the source", async (t) => {
  const server = await serve(t, {
    segmentSize: 8 * MIB,
    onSegmentBytes: ({ header, received }) => {
      if (header.index === 1 && received > MIB) {
        throw refusal(Code.ResourceExhausted, "QUOTA_EXCEEDED", { metadata: { remaining_bytes: "1048576" } });
      }
    },
  });
  let closed = false;
  const bytes = ciphertext(20 * MIB);
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      yield bytes.subarray(0, 16 * MIB);
      for (let offset = 16 * MIB; ; offset++) {
        await pause(1);
        yield bytes.subarray(offset, offset + 1);
      }
    } finally {
      closed = true;
    }
  }
  const error = await t.throwsAsync(clientOf(server).upload(ask(source())), { name: "QuotaExceededError" });
  t.is((error as QuotaExceededError).metadata.remaining_bytes, "1048576");
  assertAborted(t, server, /QUOTA_EXCEEDED/);
  await pause(20);
  t.true(closed);
  t.is(server.count("CommitUpload"), 0);
});

for (const [name, dump] of [
  ["a source that fails before its first byte", 0],
  ["a source that fails after a while", 2_500_000],
] as const) {
  test(`${name} never makes a version`, async (t) => {
    const server = await serve(t);
    const { recipient } = await generateAgeKey();
    const cause = new Error("pg_dump: connection lost");
    async function* source(): AsyncGenerator<Uint8Array> {
      if (dump > 0) yield noise(dump);
      throw cause;
    }
    for (const encryption of [none, { kind: "age", recipients: [recipient] } as Encryption]) {
      if (encryption === none && dump > 0) continue;
      const error = await t.throwsAsync(clientOf(server).upload(ask(source(), { encryption })), {
        name: "SourceError",
        message: /pg_dump: connection lost/,
      });
      t.is(error!.cause, cause);
    }
    t.is(server.count("CommitUpload"), 0);
    if (dump > 0) assertAborted(t, server, /connection lost/);
    else t.is(server.count("CreateUpload"), 0);
  });
}

test("a source that fails after its last byte, or ends too early, never makes a version", async (t) => {
  const server = await serve(t);
  const bytes = ciphertext(2_000_000);
  async function* late(): AsyncGenerator<Uint8Array> {
    yield* chunked(bytes);
    throw new Error("exit status 1");
  }
  await t.throwsAsync(clientOf(server).upload(ask(late())), { name: "SourceError" });
  await t.throwsAsync(clientOf(server).upload(ask(chunked(bytes), { minSize: BigInt(bytes.length) + 1n })), {
    name: "MinSizeError",
  });
  await t.throwsAsync(clientOf(server).upload(ask(chunked(bytes.subarray(0, 1_500_000)))), {
    name: "PolicyRefusedError",
    message: /ends inside/,
  });
  t.is(server.aborted.length, 3);
  t.is(server.count("CommitUpload"), 0);
  await clientOf(server).upload(ask(chunked(bytes), { minSize: BigInt(bytes.length) }));
  t.is(server.versions.length, 1);
});

test("an empty or plain dump leaves no trace, or is aborted", async (t) => {
  const server = await serve(t);
  await t.throwsAsync(clientOf(server).upload(ask(chunked(Buffer.alloc(0)))), { name: "MinSizeError" });
  t.is(server.count("CreateUpload"), 0);
  await t.throwsAsync(clientOf(server).upload(ask(chunked(text(5000)))), { name: "PolicyRefusedError" });
  t.is(server.count("WriteSegment"), 0, "plaintext does not leave the machine");
  t.is(server.aborted.length, 1);
});

test("encryption that fails aborts the upload", async (t) => {
  const server = await serve(t);
  const encryption: Encryption = { kind: "age", recipients: ["age1notakey"], program: "library" };
  await t.throwsAsync(clientOf(server).upload(ask(chunked(noise(5000)), { encryption })), { name: "EncryptionError" });
  assertAborted(t, server, /could not encrypt/);
});

test("beforeCommit is waited for after the last segment; what it throws aborts and is thrown unchanged", async (t) => {
  const server = await serve(t);
  const order: string[] = [];
  await clientOf(server).upload(
    ask(chunked(ciphertext(2_000_000)), {
      beforeCommit: async () => {
        order.push(`${server.count("WriteSegment")} segments`);
        await pause(20);
        order.push(`${server.count("CommitUpload")} commits`);
      },
    }),
  );
  t.deepEqual(order, ["2 segments", "0 commits"]);
  const failure = new Error("exit status 3");
  const beforeCommit = (): void => {
    throw failure;
  };
  t.is(await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(100)), { beforeCommit }))), failure);
  t.is(server.versions.length, 1);
  t.regex(server.aborted[0]!.reason, /exit status 3/);
});

test("an abort of the caller ends a silent source at once, tells the server, and rejects with it", async (t) => {
  const server = await serve(t);
  const { recipient } = await generateAgeKey();
  for (const encryption of [none, { kind: "age", recipients: [recipient] } as Encryption]) {
    const controller = new AbortController();
    const silent = new Readable({ read: () => undefined });
    silent.push(encryption === none ? ciphertext(100) : noise(2 * MIB));
    const onProgress = ({ uploadId }: UploadProgress): void => {
      if (uploadId !== "") setTimeout(() => controller.abort(reason), 20);
    };
    const reason = new Error("stopped by the user");
    const options = ask(silent, { encryption, signal: controller.signal, onProgress });
    t.is(await t.throwsAsync(clientOf(server).upload(options)), reason);
    t.true(silent.destroyed);
  }
  t.deepEqual(
    server.aborted.map(({ reason }) => reason),
    ["stopped by the user", "stopped by the user"],
  );
});

test("an aborted signal does nothing at all", async (t) => {
  const server = await serve(t);
  const reason = new Error("already");
  const options = ask(chunked(ciphertext(10)), { signal: AbortSignal.abort(reason) });
  t.is(await t.throwsAsync(clientOf(server).upload(options)), reason);
  t.is(server.calls.length, 0);
});

test("closing the client ends its uploads", async (t) => {
  const server = await serve(t);
  const client = clientOf(server);
  const silent = new Readable({ read: () => undefined });
  silent.push(ciphertext(100));
  const onProgress = ({ uploadId }: UploadProgress): void => {
    if (uploadId !== "") setTimeout(() => client.close(), 20);
  };
  await t.throwsAsync(client.upload(ask(silent, { onProgress })), { message: "The client was closed." });
  t.is(server.aborted.length, 1);
});

test("a callback that throws ends the upload", async (t) => {
  const server = await serve(t);
  const failure = new Error("no terminal");
  const onProgress = ({ acknowledgedBytes }: UploadProgress): void => {
    if (acknowledgedBytes > 0n) throw failure;
  };
  t.is(await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(100)), { onProgress }))), failure);
  t.is(server.aborted.length, 1);
  await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(100)), { parallel: 0 })), {
    name: "InvalidRequestError",
  });
});

test("a source that is not as declared makes no version; declared is what is read, before encryption", async (t) => {
  const server = await serve(t);
  const { recipient } = await generateAgeKey();
  const bytes = noise(500_000);
  const sha256 = createHash("sha256").update(bytes).digest();
  const size = BigInt(bytes.length);
  const encryption: Encryption = { kind: "age", recipients: [recipient], program: "library" };
  const wrong = createHash("sha256").digest();
  for (const declared of [
    { expectedSourceSize: size - 1n },
    { expectedSourceSize: size + 1n },
    { expectedSourceSha256: wrong },
    { expectedSourceSize: size, expectedSourceSha256: wrong },
  ]) {
    await t.throwsAsync(clientOf(server).upload(ask(chunked(bytes), { encryption, ...declared })), {
      name: "DumpMismatchError",
      message: /got .*, so nothing was stored/,
    });
  }
  t.is(server.versions.length, 0);
  t.is(server.count("CommitUpload"), 0);
  await clientOf(server).upload(
    ask(chunked(bytes), { encryption, expectedSourceSize: size, expectedSourceSha256: sha256 }),
  );
  t.is(server.versions.length, 1);
});

test("a binary age file of another program is taken with its size, its digest, or at the caller's risk", async (t) => {
  const server = await serve(t);
  const { recipient } = await generateAgeKey();
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  const whole = Buffer.from(await encrypter.encrypt(noise(200_000)));
  const cut = whole.subarray(0, 100_001);
  const machine = new FramingMachine({ formats: ["age"] });
  machine.push(cut);
  t.true(machine.complete, "the cut cannot be seen from outside");
  for (const size of [whole.length, 10, 1]) {
    await t.throwsAsync(clientOf(server).upload(ask(chunked(cut, size))), {
      name: "InvalidRequestError",
      message: /looks whole wherever it is cut/,
    });
  }
  t.is(server.count("CreateUpload"), 0, "it is said before anything is begun");
  const declared = {
    expectedSourceSize: BigInt(whole.length),
    expectedSourceSha256: createHash("sha256").update(whole).digest(),
  };
  for (const [key, value] of Object.entries(declared)) {
    await t.throwsAsync(clientOf(server).upload(ask(chunked(cut), { [key]: value })), { name: "DumpMismatchError" });
    await clientOf(server).upload(ask(chunked(whole), { [key]: value }));
  }
  await clientOf(server).upload(ask(chunked(whole), { trustSourceEnd: true }));
  // Armor and OpenPGP show their ends.
  const armored = Buffer.from(armor.encode(whole));
  await clientOf(server).upload(ask(chunked(armored)));
  await clientOf(server).upload(ask(chunked(ciphertext(100_000))));
  t.is(server.versions.length, 5);
  await t.throwsAsync(clientOf(server).upload(ask(chunked(armored.subarray(0, 100_000)))), {
    name: "PolicyRefusedError",
  });
});
