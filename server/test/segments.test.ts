import { createHash } from "node:crypto";
import test from "ava";
import fc from "fast-check";
import { bytesEqual, chooseSegmentSize, compositeSha256, MIB } from "../src/domain/segments.ts";

const TIB = 1024n ** 4n;
const S3 = { minPartSize: 5n * MIB, maxParts: 10_000 };
const SCALEWAY = { minPartSize: 5n * MIB, maxParts: 1000 };
const MEMORY = { minPartSize: 1n, maxParts: 10_000 };

type Store = typeof S3;

const cases: [title: string, maxSize: bigint, least: bigint, store: Store, expected: bigint][] = [
  ["the default for what is small", 100n * MIB, 16n * MIB, S3, 16n * MIB],
  ["the default for nothing at all", 0n, 16n * MIB, S3, 16n * MIB],
  ["exactly as many parts as allowed", 160_000n * MIB, 16n * MIB, S3, 16n * MIB],
  ["one byte more", 160_000n * MIB + 1n, 16n * MIB, S3, 17n * MIB],
  ["5 TiB, the most S3 keeps in one object", 5n * TIB, 16n * MIB, S3, 525n * MIB],
  ["a store of 1000 parts", 160_000n * MIB, 16n * MIB, SCALEWAY, 160n * MIB],
  ["the least part of the store", MIB, MIB, S3, 5n * MIB],
  ["a least part that is no whole MiB", MIB, MIB, { minPartSize: MIB + 1n, maxParts: 10 }, 2n * MIB],
  ["a small default", 10n * MIB, MIB, MEMORY, MIB],
  ["the largest size there is", 2n ** 63n - 1n, 16n * MIB, MEMORY, 879_609_303n * MIB],
];

for (const [title, maxSize, least, store, expected] of cases) {
  test(`chooseSegmentSize: ${title}`, (t) => t.is(chooseSegmentSize(maxSize, least, store), expected));
}

test("chooseSegmentSize gives the smallest whole MiB that satisfies everything", (t) => {
  const arbitrary = fc.record({
    maxSize: fc.bigInt({ min: 0n, max: 2n ** 50n }),
    least: fc.bigInt({ min: 1n, max: 64n }).map((mib) => mib * MIB),
    minPartSize: fc.bigInt({ min: 1n, max: 64n * MIB }),
    maxParts: fc.integer({ min: 1, max: 10_000 }),
  });
  fc.assert(
    fc.property(arbitrary, ({ maxSize, least, minPartSize, maxParts }) => {
      const fits = (size: bigint) =>
        size % MIB === 0n && size >= least && size >= minPartSize && size * BigInt(maxParts) >= maxSize;
      const size = chooseSegmentSize(maxSize, least, { minPartSize, maxParts });
      t.true(fits(size));
      t.false(size > MIB && fits(size - MIB));
    }),
    { numRuns: 500 },
  );
});

const sha256 = (...parts: Uint8Array[]) => new Uint8Array(createHash("sha256").update(Buffer.concat(parts)).digest());
const digests = fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 }), { maxLength: 8 });

test("compositeSha256 is the digest of the digests, also of one and of none", (t) => {
  const one = sha256(Buffer.from("segment"));
  t.deepEqual(compositeSha256([one]), sha256(one));
  t.notDeepEqual(compositeSha256([one]), one);
  t.is(
    Buffer.from(compositeSha256([])).toString("hex"),
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
  );
  fc.assert(
    fc.property(digests, (list) => {
      const composite = compositeSha256(new Set(list));
      t.deepEqual(composite, sha256(...list));
      t.true(composite instanceof Uint8Array && !Buffer.isBuffer(composite));
    }),
  );
});

test("compositeSha256 depends on the order", (t) => {
  const [a, b] = [sha256(Buffer.from("a")), sha256(Buffer.from("b"))];
  t.notDeepEqual(compositeSha256([a, b]), compositeSha256([b, a]));
});

test("bytesEqual", (t) => {
  t.true(bytesEqual(new Uint8Array(), Buffer.alloc(0)));
  t.true(bytesEqual(Uint8Array.of(1, 2), Buffer.from([1, 2])));
  t.false(bytesEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3)));
  t.false(bytesEqual(Uint8Array.of(1, 2, 3), Uint8Array.of(1, 2)));
  const bytes = fc.uint8Array({ maxLength: 6 });
  fc.assert(
    fc.property(bytes, bytes, (a, b) => {
      t.is(bytesEqual(a, b), Buffer.compare(a, b) === 0);
      t.true(bytesEqual(a, Uint8Array.from(a)));
    }),
  );
});
