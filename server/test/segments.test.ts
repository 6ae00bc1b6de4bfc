import test from "ava";
import fc from "fast-check";
import { bytesEqual, chooseSegmentSize, MIB } from "../src/domain/segments.ts";

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
