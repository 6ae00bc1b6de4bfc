import test from "ava";
import fc from "fast-check";
import { allowance, extraSpace, maxUploadSize, type QuotaLimits, type QuotaSituation } from "../src/domain/quota.ts";
import { isRemovalBlocked, planFifo, type RotatableVersion } from "../src/domain/rotation.ts";

const MIB = 1024n * 1024n;

/** The example of the protocol: count 5, soft 1 MiB, hard 10 MiB, extra 5 MiB. */
const EXAMPLE: QuotaLimits = { maxBackupsCount: 5, maxOneVersionSize: MIB, maxCollectionSize: 10n * MIB };

const sum = (sizes: readonly bigint[]): bigint => sizes.reduce((total, size) => total + size, 0n);
const above = (sizes: readonly bigint[], soft: bigint): bigint =>
  sum(sizes.map((size) => (size > soft ? size - soft : 0n)));

test("example of the protocol: extra space", (t) => {
  t.is(extraSpace(EXAMPLE), 5n * MIB);
  t.is(maxUploadSize(EXAMPLE), 6n * MIB);
});

test("example of the protocol: empty, min(10, 6)", (t) => {
  t.is(allowance(EXAMPLE, { kept: [], reservedByOthers: [] }), 6n * MIB);
});

test("example of the protocol: one kept version of 4 MiB, min(6, 3)", (t) => {
  t.is(allowance(EXAMPLE, { kept: [4n * MIB], reservedByOthers: [] }), 3n * MIB);
});

test("example of the protocol: five of 1 MiB, of which fifo keeps four, min(6, 6)", (t) => {
  const live = [1n, 2n, 3n, 4n, 5n].map((number) => ({
    number,
    size: MIB,
    begunAt: new Date(Number(number)),
    held: false,
    protectedUntil: null,
  }));
  const { keep } = planFifo(live, EXAMPLE.maxBackupsCount, new Date(100));
  t.is(keep.length, 4);
  t.is(allowance(EXAMPLE, { kept: keep.map((v) => v.size), reservedByOthers: [] }), 6n * MIB);
});

const cases: [string, QuotaLimits, QuotaSituation, bigint][] = [
  ["a reservation counts like a kept version", EXAMPLE, { kept: [], reservedByOthers: [4n * MIB] }, 3n * MIB],
  ["nothing is left", EXAMPLE, { kept: [10n * MIB], reservedByOthers: [] }, 0n],
  ["more than everything is used", EXAMPLE, { kept: [11n * MIB], reservedByOthers: [3n * MIB] }, 0n],
  ["the extra space is used up", EXAMPLE, { kept: [6n * MIB], reservedByOthers: [] }, MIB],
  ["a version of exactly the soft limit", EXAMPLE, { kept: [MIB], reservedByOthers: [] }, 6n * MIB],
  ["one byte above the soft limit", EXAMPLE, { kept: [MIB + 1n], reservedByOthers: [] }, 6n * MIB - 1n],
  [
    "small versions leave no room above soft + extra",
    EXAMPLE,
    { kept: [1n, 1n, 1n, 1n], reservedByOthers: [] },
    6n * MIB,
  ],
  [
    "no extra space",
    { maxBackupsCount: 3, maxOneVersionSize: 10n, maxCollectionSize: 30n },
    { kept: [10n], reservedByOthers: [10n] },
    10n,
  ],
  [
    "no extra space, all places taken",
    { maxBackupsCount: 3, maxOneVersionSize: 10n, maxCollectionSize: 30n },
    { kept: [10n, 10n], reservedByOthers: [10n] },
    0n,
  ],
  [
    "an invalid configuration gives at most soft + extra",
    { maxBackupsCount: 3, maxOneVersionSize: 10n, maxCollectionSize: 25n },
    { kept: [], reservedByOthers: [] },
    5n,
  ],
  [
    "an invalid configuration without any room",
    { maxBackupsCount: 5, maxOneVersionSize: 10n, maxCollectionSize: 25n },
    { kept: [], reservedByOthers: [] },
    0n,
  ],
  [
    "sizes beyond 2^53",
    { maxBackupsCount: 1, maxOneVersionSize: 2n ** 61n, maxCollectionSize: 2n ** 62n + 1n },
    { kept: [2n ** 53n + 1n], reservedByOthers: [1n] },
    2n ** 62n + 1n - 2n ** 53n - 2n,
  ],
];

for (const [title, limits, situation, expected] of cases) {
  test(`allowance: ${title}`, (t) => t.is(allowance(limits, situation), expected));
}

const size = fc.bigInt({ min: 0n, max: 60n });

/** Valid limits, small, so that every border is met. */
const validLimits: fc.Arbitrary<QuotaLimits> = fc
  .record({ count: fc.integer({ min: 1, max: 5 }), soft: size, extra: size })
  .map(({ count, soft, extra }) => ({
    maxBackupsCount: count,
    maxOneVersionSize: soft,
    maxCollectionSize: BigInt(count) * soft + extra,
  }));

/** Also those with a negative extra space. */
const anyLimits: fc.Arbitrary<QuotaLimits> = fc.record({
  maxBackupsCount: fc.integer({ min: 1, max: 5 }),
  maxOneVersionSize: size,
  maxCollectionSize: fc.bigInt({ min: 0n, max: 300n }),
});

const situations: fc.Arbitrary<QuotaSituation> = fc.record({
  kept: fc.array(size, { maxLength: 6 }),
  reservedByOthers: fc.array(size, { maxLength: 4 }),
});

test("the allowance is the formula of the protocol, never negative, never above the hard limit", (t) => {
  fc.assert(
    fc.property(anyLimits, situations, (limits, { kept, reservedByOthers }) => {
      const { maxOneVersionSize: soft, maxCollectionSize: hard } = limits;
      const extra = hard - BigInt(limits.maxBackupsCount) * soft;
      const first = hard - sum(kept) - sum(reservedByOthers);
      const second = soft + extra - above(kept, soft) - above(reservedByOthers, soft);
      const least = first < second ? first : second;
      const given = allowance(limits, { kept, reservedByOthers });
      t.is(given, least < 0n ? 0n : least);
      t.true(given >= 0n && given <= hard);
    }),
    { numRuns: 500 },
  );
});

test("what takes more room never gives a larger allowance", (t) => {
  const bytes = fc.bigInt({ min: 0n, max: 20n });
  fc.assert(
    fc.property(anyLimits, situations, bytes, fc.nat(), (limits, situation, more, seed) => {
      const before = allowance(limits, situation);
      const { kept, reservedByOthers } = situation;
      t.true(allowance(limits, { kept: [...kept, more], reservedByOthers }) <= before, "one more version");
      t.true(allowance(limits, { kept, reservedByOthers: [...reservedByOthers, more] }) <= before, "one more upload");
      const grow = (sizes: readonly bigint[]) => sizes.map((s, i) => (i === seed % sizes.length ? s + more : s));
      t.true(allowance(limits, { kept: grow(kept), reservedByOthers }) <= before, "a larger version");
      t.true(allowance(limits, { kept, reservedByOthers: grow(reservedByOthers) }) <= before, "a larger reservation");
    }),
    { numRuns: 500 },
  );
});

test("a higher hard limit never gives a smaller allowance, and a kept version weighs as much as a reservation", (t) => {
  fc.assert(
    fc.property(anyLimits, situations, size, (limits, situation, more) => {
      const raised = { ...limits, maxCollectionSize: limits.maxCollectionSize + more };
      t.true(allowance(raised, situation) >= allowance(limits, situation));
      const { kept, reservedByOthers } = situation;
      t.is(allowance(limits, { kept: reservedByOthers, reservedByOthers: kept }), allowance(limits, situation));
    }),
    { numRuns: 500 },
  );
});

test("an upload of the whole allowance keeps everything within the hard limit and the extra space", (t) => {
  fc.assert(
    fc.property(validLimits, situations, (limits, situation) => {
      const given = allowance(limits, situation);
      if (given === 0n) return;
      const others = [...situation.kept, ...situation.reservedByOthers];
      t.true(sum([...others, given]) <= limits.maxCollectionSize);
      // Lowered limits can leave others that use more than the extra space already.
      const aboveBefore = above(others, limits.maxOneVersionSize);
      const most = aboveBefore > extraSpace(limits) ? aboveBefore : extraSpace(limits);
      t.true(above([...others, given], limits.maxOneVersionSize) <= most);
    }),
    { numRuns: 500 },
  );
});

test("with no more than maxBackupsCount - 1 others within the soft limit, the soft limit is always granted", (t) => {
  fc.assert(
    fc.property(validLimits, fc.array(size, { maxLength: 4 }), (limits, sizes) => {
      const soft = limits.maxOneVersionSize;
      const kept = sizes.slice(0, limits.maxBackupsCount - 1).map((s) => (s < soft ? s : soft));
      t.is(allowance(limits, { kept, reservedByOthers: [] }), soft + extraSpace(limits));
    }),
    { numRuns: 500 },
  );
});

interface ModelVersion extends RotatableVersion {
  held: boolean;
}

interface ModelUpload {
  readonly begunAt: Date;
  reserved: bigint;
}

/**
 * A collection by the rules of the protocol: begin, reserve, publish with rotation, abort, holds, and time that goes
 * by.
 */
class Model {
  readonly limits: QuotaLimits;
  readonly minRetentionMs: number;
  live: ModelVersion[] = [];
  uploads: ModelUpload[] = [];
  #now = 0;
  #lastNumber = 0n;

  constructor(limits: QuotaLimits, minRetentionMs: number) {
    this.limits = limits;
    this.minRetentionMs = minRetentionMs;
  }

  get now(): Date {
    return new Date(this.#now);
  }

  get kept(): bigint[] {
    return planFifo(this.live, this.limits.maxBackupsCount, this.now).keep.map((v) => v.size);
  }

  allowanceOf(upload: ModelUpload): bigint {
    const reservedByOthers = this.uploads.filter((u) => u !== upload).map((u) => u.reserved);
    return allowance(this.limits, { kept: this.kept, reservedByOthers });
  }

  wait(ms: number): void {
    this.#now += ms;
  }

  begin(): void {
    this.uploads.push({ begunAt: this.now, reserved: 0n });
  }

  reserve(upload: ModelUpload, bytes: bigint): void {
    if (upload.reserved + bytes <= this.allowanceOf(upload)) upload.reserved += bytes;
  }

  abort(upload: ModelUpload): void {
    this.uploads = this.uploads.filter((u) => u !== upload);
  }

  publish(upload: ModelUpload): void {
    const { keep, remove } = planFifo(this.live, this.limits.maxBackupsCount, this.now);
    if (remove.some((v) => isRemovalBlocked(v, this.now))) throw new Error("rotation removes what it must not");
    this.#lastNumber += 1n;
    const protectedUntil = this.minRetentionMs === 0 ? null : new Date(this.now.getTime() + this.minRetentionMs);
    this.live = [
      ...keep,
      { number: this.#lastNumber, size: upload.reserved, begunAt: upload.begunAt, held: false, protectedUntil },
    ];
    this.abort(upload);
  }

  /** By the same arithmetic: a hold that would keep more than fits is refused. */
  toggleHold(version: ModelVersion): void {
    version.held = !version.held;
    if (version.held && !this.fits()) version.held = false;
  }

  fits(): boolean {
    const all = [...this.kept, ...this.uploads.map((u) => u.reserved)];
    return (
      sum(all) <= this.limits.maxCollectionSize && above(all, this.limits.maxOneVersionSize) <= extraSpace(this.limits)
    );
  }
}

type Step = readonly [what: "wait" | "begin" | "reserve" | "publish" | "abort" | "hold", which: number, bytes: bigint];

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.tuple(
    fc.oneof(
      { weight: 1, arbitrary: fc.constant("wait" as const) },
      { weight: 2, arbitrary: fc.constant("begin" as const) },
      { weight: 5, arbitrary: fc.constant("reserve" as const) },
      { weight: 2, arbitrary: fc.constant("publish" as const) },
      { weight: 1, arbitrary: fc.constant("abort" as const) },
      { weight: 1, arbitrary: fc.constant("hold" as const) },
    ),
    fc.nat(1000),
    fc.bigInt({ min: 1n, max: 90n }),
  ),
  { minLength: 20, maxLength: 120, size: "max" },
);

/** Takes one step. @returns what rule it broke; empty for none. */
function take(model: Model, [what, which, bytes]: Step): string {
  const upload = model.uploads[which % Math.max(1, model.uploads.length)];
  const version = model.live[which % Math.max(1, model.live.length)];
  if (what === "wait") model.wait(which);
  if (what === "begin") model.begin();
  if (what === "hold" && version !== undefined) model.toggleHold(version);
  if (upload !== undefined) {
    if (what === "reserve") model.reserve(upload, bytes);
    if (what === "abort") model.abort(upload);
    if (what === "publish" && upload.reserved > 0n) {
      if (upload.reserved > model.allowanceOf(upload)) return "what was reserved does not fit at its commit";
      model.publish(upload);
    }
  }
  if (sum(model.live.map((v) => v.size)) > model.limits.maxCollectionSize) return "versions pass the hard limit";
  return model.fits() ? "" : "kept versions and reservations pass the hard limit or the extra space";
}

test("uploads in parallel, rotation, holds and protection in any order never pass the hard limit", (t) => {
  const seen = { published: 0, rotated: 0, twoOpen: 0, full: 0 };
  fc.assert(
    fc.property(validLimits, fc.constantFrom(0, 500, 3000), steps, (limits, minRetentionMs, sequence) => {
      const model = new Model(limits, minRetentionMs);
      for (const step of sequence) {
        const before = model.live.length;
        const broken = take(model, step);
        if (broken !== "") throw new Error(`${broken} after ${step}`);
        if (step[0] === "publish") {
          seen.published += model.live.length > 0 ? 1 : 0;
          seen.rotated += before > 0 && model.live.length <= before ? 1 : 0;
        }
        seen.twoOpen += model.uploads.filter((u) => u.reserved > 0n).length > 1 ? 1 : 0;
        seen.full += sum(model.live.map((v) => v.size)) === limits.maxCollectionSize ? 1 : 0;
      }
    }),
    { numRuns: 1000 },
  );
  // Otherwise the sequences do not show what they are for.
  for (const [what, times] of Object.entries(seen)) t.true(times > 20, `${what}: ${times}`);
});
