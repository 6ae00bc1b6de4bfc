import { createHash } from "node:crypto";
import { FramingMachine, initialFramingState } from "@strongroom/framing";
import { compositeSha256 } from "@strongroom/protocol/digests";
import test from "ava";
import fc from "fast-check";
import { cutSegments, type PreparedSegment, SegmentBuffers } from "../src/upload/segments.ts";
import { chunked, ciphertext } from "./support/bytes.ts";

const never = new AbortController().signal;

interface Cut {
  bytes: string;
  sha256: string;
  framingIn: string;
}

async function cut(source: AsyncIterable<Uint8Array>, size: number): Promise<Cut[]> {
  const segments: Cut[] = [];
  for await (const segment of cutSegments(source, new SegmentBuffers(1, size, never))) {
    const sha256 = Buffer.from(segment.sha256).toString("hex");
    const bytes = Buffer.from(await segment.read(0, segment.size)).toString("hex");
    segments.push({ bytes, sha256, framingIn: Buffer.from(segment.framingIn).toString("hex") });
    segment.release();
  }
  return segments;
}

async function* pieces(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let offset = 0;
  for (let i = 0; offset < bytes.length; i++) {
    const size = sizes.length === 0 ? bytes.length : sizes[i % sizes.length]!;
    yield bytes.subarray(offset, offset + size);
    // A source may give empty chunks, but not only those.
    offset += size === 0 && sizes.every((s) => s === 0) ? 1 : size;
  }
}

test("any chunking gives the same segments, digests and framing states", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 3000 }),
      fc.integer({ min: 1, max: 700 }),
      fc
        .array(fc.integer({ min: 0, max: 900 }), { maxLength: 8 })
        .filter((sizes) => sizes.every((s) => s > 0) || sizes.some((s) => s > 0)),
      async (length, segmentSize, sizes) => {
        const bytes = ciphertext(length);
        const segments = await cut(pieces(bytes, sizes), segmentSize);
        t.is(segments.map((segment) => segment.bytes).join(""), bytes.toString("hex"));
        const machine = new FramingMachine({ formats: ["openpgp"] });
        for (const [index, segment] of segments.entries()) {
          const part = bytes.subarray(index * segmentSize, (index + 1) * segmentSize);
          t.is(segment.bytes, part.toString("hex"));
          t.is(segment.sha256, createHash("sha256").update(part).digest("hex"));
          t.is(segment.framingIn, Buffer.from(machine.encodeState()).toString("hex"));
          machine.push(part);
        }
        t.true(machine.complete);
      },
    ),
    { numRuns: 150 },
  );
});

test("the first segment begins in the initial state", async (t) => {
  const [first] = await cut(chunked(ciphertext(10)), 100);
  t.is(first!.framingIn, Buffer.from(initialFramingState()).toString("hex"));
});

test("no more buffers are made than allowed, and a source waits for them", async (t) => {
  const bytes = ciphertext(1000);
  let read = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunked(bytes, 100)) {
      read += chunk.length;
      yield chunk;
    }
  }
  const segments = cutSegments(source(), new SegmentBuffers(2, 200, never));
  const first = (await segments.next()).value!;
  const second = (await segments.next()).value!;
  const memoryOf = (segment: PreparedSegment) => (segment.read(0, segment.size) as Uint8Array).buffer;
  const memory = memoryOf(first);
  t.not(memory, memoryOf(second));
  const third = segments.next();
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.is(read, 500, "one chunk more than fits two segments");
  first.release();
  t.is(memoryOf((await third).value!), memory);
  await segments.return(undefined);
});

test("waiting for a buffer ends with the signal", async (t) => {
  const controller = new AbortController();
  const buffers = new SegmentBuffers(1, 10, controller.signal);
  await buffers.acquire();
  const second = buffers.acquire();
  const reason = new Error("enough");
  controller.abort(reason);
  t.is(await t.throwsAsync(second), reason);
});

test("plaintext and cut messages are refused, as the server would", async (t) => {
  const plain = await t.throwsAsync(cut(chunked(Buffer.from("-- PostgreSQL database dump\n")), 10), {
    name: "PolicyRefusedError",
  });
  const { reason, metadata } = plain as unknown as { reason: string; metadata: Record<string, string> };
  t.is(reason, "CIPHERTEXT_REFUSED");
  t.is(metadata.violation, "not-ciphertext");
  t.regex(metadata.offset_bytes!, /^\d+$/);
  const bytes = ciphertext(500);
  await t.throwsAsync(cut(chunked(bytes.subarray(0, 400)), 100), {
    name: "PolicyRefusedError",
    message: /truncated|ends inside/,
  });
  await t.throwsAsync(cut(chunked(Buffer.alloc(0)), 100), { name: "PolicyRefusedError" });
});

test("the composite digest is the one of S3", (t) => {
  const digests = ["a", "b"].map((s) => createHash("sha256").update(s).digest());
  const expected = createHash("sha256").update(Buffer.concat(digests)).digest();
  t.true(expected.equals(compositeSha256(digests)));
});
