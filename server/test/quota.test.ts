import test from "ava";
import fc from "fast-check";
import {
  allowance as allowanceBeside,
  extraSpace,
  maxUploadSize,
  type QuotaLimits,
  quotaLimits,
  sumSizes,
  sumVersions,
  victimsOf,
} from "../src/domain/quota.ts";
import {
  copiesOf,
  isRemovalBlocked,
  planRotation,
  type RotatableVersion,
  type RotationPolicy,
  type RotationRules,
} from "../src/domain/rotation.ts";

const MIB = 1024n * 1024n;

function fifo(maxBackupsCount: number): RotationRules {
  return { rotation: { strategy: "fifo" }, maxBackupsCount, timezone: "UTC" };
}

/** The example of the protocol: count 5, soft 1 MiB, hard 10 MiB, extra 5 MiB. */
const EXAMPLE: QuotaLimits = { copies: 5, maxOneVersionSize: MIB, maxCollectionSize: 10n * MIB };

const sum = (sizes: readonly bigint[]): bigint => sizes.reduce((total, size) => total + size, 0n);
const above = (sizes: readonly bigint[], soft: bigint): bigint =>
  sum(sizes.map((size) => (size > soft ? size - soft : 0n)));

/** Kept versions by their sizes; the server sums them up. */
interface Situation {
  readonly kept: readonly bigint[];
  readonly reservedByOthers: readonly bigint[];
}

const allowance = (limits: QuotaLimits, { kept, reservedByOthers }: Situation): bigint =>
  allowanceBeside(limits, { kept: sumSizes(limits, kept), reservedByOthers });

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
  const next = { begunAt: new Date(100) };
  const { keep } = planRotation(live, fifo(EXAMPLE.copies), next, new Date(100));
  t.is(keep.length, 4);
  t.is(allowance(EXAMPLE, { kept: keep.map((v) => v.size), reservedByOthers: [] }), 6n * MIB);
});

const cases: [string, QuotaLimits, Situation, bigint][] = [
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
    { copies: 3, maxOneVersionSize: 10n, maxCollectionSize: 30n },
    { kept: [10n], reservedByOthers: [10n] },
    10n,
  ],
  [
    "no extra space, all places taken",
    { copies: 3, maxOneVersionSize: 10n, maxCollectionSize: 30n },
    { kept: [10n, 10n], reservedByOthers: [10n] },
    0n,
  ],
  [
    "an invalid configuration gives at most soft + extra",
    { copies: 3, maxOneVersionSize: 10n, maxCollectionSize: 25n },
    { kept: [], reservedByOthers: [] },
    5n,
  ],
  [
    "an invalid configuration without any room",
    { copies: 5, maxOneVersionSize: 10n, maxCollectionSize: 25n },
    { kept: [], reservedByOthers: [] },
    0n,
  ],
  [
    "sizes beyond 2^53",
    { copies: 1, maxOneVersionSize: 2n ** 61n, maxCollectionSize: 2n ** 62n + 1n },
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
    copies: count,
    maxOneVersionSize: soft,
    maxCollectionSize: BigInt(count) * soft + extra,
  }));

/** Also those with a negative extra space. */
const anyLimits: fc.Arbitrary<QuotaLimits> = fc.record({
  copies: fc.integer({ min: 1, max: 5 }),
  maxOneVersionSize: size,
  maxCollectionSize: fc.bigInt({ min: 0n, max: 300n }),
});

const situations: fc.Arbitrary<Situation> = fc.record({
  kept: fc.array(size, { maxLength: 6 }),
  reservedByOthers: fc.array(size, { maxLength: 4 }),
});

test("the allowance is the formula of the protocol, never negative, never above the hard limit", (t) => {
  fc.assert(
    fc.property(anyLimits, situations, (limits, { kept, reservedByOthers }) => {
      const { maxOneVersionSize: soft, maxCollectionSize: hard } = limits;
      const extra = hard - BigInt(limits.copies) * soft;
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

test("with no more than copies - 1 others within the soft limit, the soft limit is always granted", (t) => {
  fc.assert(
    fc.property(validLimits, fc.array(size, { maxLength: 4 }), (limits, sizes) => {
      const soft = limits.maxOneVersionSize;
      const kept = sizes.slice(0, limits.copies - 1).map((s) => (s < soft ? s : soft));
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
  readonly rules: RotationRules;
  readonly minRetentionMs: number;
  live: ModelVersion[] = [];
  uploads: ModelUpload[] = [];
  #now = 0;
  #lastNumber = 0n;

  constructor(limits: QuotaLimits, rules: RotationRules, minRetentionMs: number) {
    this.limits = limits;
    this.rules = rules;
    this.minRetentionMs = minRetentionMs;
  }

  get now(): Date {
    return new Date(this.#now);
  }

  /** Sizes of what takes room beside an upload. */
  keptBeside(upload: Pick<ModelUpload, "begunAt">): bigint[] {
    return planRotation(this.live, this.rules, upload, this.now).keep.map((v) => v.size);
  }

  allowanceOf(upload: ModelUpload): bigint {
    const reservedByOthers = this.uploads.filter((u) => u !== upload).map((u) => u.reserved);
    return allowance(this.limits, { kept: this.keptBeside(upload), reservedByOthers });
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
    const reservedByOthers = sum(this.uploads.filter((u) => u !== upload).map((u) => u.reserved));
    const plan = planRotation(this.live, this.rules, upload, this.now);
    const victims = victimsOf(
      plan,
      sumVersions(this.limits, plan.keep).bytes,
      this.limits,
      upload.reserved,
      reservedByOthers,
    );
    if (victims.some((v) => isRemovalBlocked(v, this.now))) throw new Error("rotation removes what it must not");
    const keep = this.live.filter((v) => !victims.includes(v));
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
    const all = [...this.keptBeside({ begunAt: this.now }), ...this.uploads.map((u) => u.reserved)];
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
      if (upload.reserved <= model.allowanceOf(upload)) model.publish(upload);
      else if (model.rules.rotation.strategy === "gfs") model.abort(upload);
      else return "what was reserved does not fit at its commit";
    }
  }
  if (sum(model.live.map((v) => v.size)) > model.limits.maxCollectionSize) return "versions pass the hard limit";
  // Whether a reservation still fits is looked at again at its commit, since gfs may keep others by then.
  return model.rules.rotation.strategy === "gfs" || model.fits()
    ? ""
    : "kept versions and reservations pass the hard limit or the extra space";
}

const policies: fc.Arbitrary<RotationPolicy> = fc.oneof(
  fc.constant({ strategy: "fifo" as const }),
  fc
    .record({ maxOlderCopies: fc.integer({ min: 1, max: 4 }), maxAgeMs: fc.constantFrom(500, 5000, 50_000) })
    .map((older) => ({ strategy: "fifo-plus-older" as const, older })),
  fc
    .tuple(fc.nat(2), fc.nat(2), fc.nat(2))
    .filter((counts) => counts.some((count) => count > 0))
    .map(([keepLast, keepHourly, keepDaily]) => ({
      strategy: "gfs" as const,
      counts: { keepLast, keepHourly, keepDaily, keepWeekly: 1, keepMonthly: 1, keepYearly: 0 },
    })),
);

/** A collection's rules with valid limits. */
const collections = fc
  .record({ rotation: policies, maxBackupsCount: fc.integer({ min: 1, max: 5 }), soft: size, extra: size })
  .map(({ rotation, maxBackupsCount, soft, extra }) => {
    const rules: RotationRules = { rotation, maxBackupsCount, timezone: "UTC" };
    const copies = rotation.strategy === "gfs" ? copiesOf(rules) : maxBackupsCount;
    const maxCollectionSize = BigInt(copies) * soft + extra;
    return { rules, limits: quotaLimits({ ...rules, maxOneVersionSize: soft, maxCollectionSize }) };
  });

/** A step of waiting takes up to so long under each strategy, in milliseconds: gfs counts hours at the least. */
const WAIT_FACTOR = { fifo: 1, "fifo-plus-older": 1, gfs: 40_000 } as const;

test("uploads in parallel, rotation, holds and protection in any order never pass the hard limit", (t) => {
  const seen = { published: 0, rotated: 0, twoOpen: 0, full: 0, gfs: 0, older: 0 };
  fc.assert(
    fc.property(collections, fc.constantFrom(0, 500, 3000), steps, ({ rules, limits }, minRetentionMs, sequence) => {
      const { strategy } = rules.rotation;
      const model = new Model(limits, rules, minRetentionMs * WAIT_FACTOR[strategy]);
      for (const [what, which, bytes] of sequence) {
        const before = model.live.length;
        const broken = take(model, [what, what === "wait" ? which * WAIT_FACTOR[strategy] : which, bytes]);
        if (broken !== "") throw new Error(`${broken} after ${what} ${which} ${bytes}`);
        if (what === "publish") {
          seen.published += model.live.length > 0 ? 1 : 0;
          seen.rotated += before > 0 && model.live.length <= before ? 1 : 0;
          seen.gfs += strategy === "gfs" && before > 0 && model.live.length <= before ? 1 : 0;
          seen.older += strategy === "fifo-plus-older" && model.live.length > rules.maxBackupsCount ? 1 : 0;
        }
        seen.twoOpen += model.uploads.filter((u) => u.reserved > 0n).length > 1 ? 1 : 0;
        seen.full += sum(model.live.map((v) => v.size)) === limits.maxCollectionSize ? 1 : 0;
      }
    }),
    { numRuns: 2000 },
  );
  // Otherwise the sequences do not show what they are for.
  for (const [what, times] of Object.entries(seen)) t.true(times > 20, `${what}: ${times}`);
});
