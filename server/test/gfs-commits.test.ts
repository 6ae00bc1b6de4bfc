/** Room under `gfs` beside an upload that is being committed: whichever is published first decides what stays. */
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import fc from "fast-check";
import type { CollectionRow, UploadRow } from "../src/app/ports/database.ts";
import type { LiveVersion } from "../src/app/ports/live-versions.ts";
import { commitUpload, finishCommit } from "../src/app/uploads/commit-upload.ts";
import { type GuardedPlan, rotationOf } from "../src/app/versions/removal.ts";
import type { CollectionSpec } from "../src/domain/configuration.ts";
import { removalRules } from "../src/domain/policy-guard.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";
import { collection, type Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const NONE = { keepLast: 0, keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };
const DAY = 24 * 3_600_000;

/** What `livePlansBeside` says, over all live versions; `growth.test.ts` compares the plans themselves. */
function plansBeside(
  live: readonly LiveVersion[],
  spec: CollectionSpec,
  begunAt: Date,
  now: Date,
  row: Pick<CollectionRow, "confirmedPolicy">,
  others: readonly UploadRow[],
): readonly [own: GuardedPlan, ...first: GuardedPlan[]] {
  const committing = others.filter(({ state }) => state === "committing");
  const plan = (of: Date) => rotationOf(live, spec, of, now, [], row);
  return [plan(begunAt), ...committing.map((upload) => plan(upload.begunAt))];
}

test("a commit that the store does not finish takes its own bytes, and not those that rotation frees", async (t) => {
  const { h } = t.context;
  const spec = h.add({
    rotation: { strategy: "gfs", counts: { ...NONE, keepDaily: 3 } },
    maxOneVersionSize: BigInt(MIB),
    maxCollectionSize: BigInt(4 * MIB),
  });
  const message = openpgpMessage(MIB - 1000);
  for (let day = 0; day < 3; day++) {
    await h.upload(spec.name, message);
    h.clock.advance(DAY);
  }
  const finish = await stick(t, h, spec.name, message);
  // Of the three versions either of the two lets one go: 2 + 1 + 1.
  const next = await h.upload(spec.name, message);
  t.is(next.removedNumbers.length, 1);
  await finish();
  t.true((await h.usage(spec.name)).storedBytes <= spec.maxCollectionSize);
});

test("a refusal that only a commit is the cause of says to wait", async (t) => {
  const { h } = t.context;
  const spec = h.add({
    rotation: { strategy: "gfs", counts: { ...NONE, keepDaily: 2 } },
    maxOneVersionSize: BigInt(MIB),
    maxCollectionSize: BigInt(2 * MIB),
  });
  const [large, small] = [openpgpMessage(MIB), openpgpMessage(1000)];
  await h.upload(spec.name, large);
  h.clock.advance(DAY);
  await h.upload(spec.name, small);
  // It is of the same day as the small version, and takes its place; what is begun tomorrow takes that of the large one.
  const finish = await stick(t, h, spec.name, large);
  h.clock.advance(DAY);
  const error = await refused(t, "COLLECTION_BUSY", h.begin(spec.name));
  t.regex(error.message, /is being committed/);
  await finish();
  await h.upload(spec.name, large);
  t.true((await h.usage(spec.name)).storedBytes <= spec.maxCollectionSize);
});

/** Prepares a commit that the store does not finish. @returns what finishes it. */
async function stick(t: ExecutionContext, h: Harness, name: string, message: Uint8Array): Promise<() => Promise<void>> {
  const store = new FaultyBlobStore(h.deps.store);
  store.fail("complete");
  const { upload } = await h.begin(name);
  const segments = cutSegments(message, MIB);
  for (const segment of segments) await h.write(upload.id, segment);
  const input = { uploadId: upload.id, size: BigInt(message.length), compositeSha256: compositeOf(segments) };
  await refused(t, "STORE_UNAVAILABLE", commitUpload(h.over(store), h.admin, input));
  const committing = (await h.deps.database.read(async (tx) => await tx.uploads.find(upload.id)))!;
  return async () => void (await finishCommit(h.deps, committing));
}

const times = fc.array(fc.nat(5 * 24), { minLength: 2, maxLength: 8, size: "max" });
const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 12, maxLength: 12 });
const counts = fc.tuple(fc.nat(2), fc.nat(2), fc.nat(2), fc.nat(2));

test("what fits beside every plan passes the hard limit in no order, and nothing less than that is asked", (t) => {
  const seen = { differ: 0, exact: 0 };
  fc.assert(
    fc.property(
      times,
      sizes,
      counts,
      fc.array(fc.nat(5 * 24), { minLength: 2, maxLength: 3 }),
      (ages, bytes, kept, at) => {
        const [keepLast, keepHourly, keepDaily, keepWeekly] = kept;
        if (keepLast + keepHourly + keepDaily + keepWeekly === 0) return;
        const rotation = { strategy: "gfs" as const, counts: { ...NONE, keepLast, keepHourly, keepDaily, keepWeekly } };
        const spec: CollectionSpec = collection("g", { rotation });
        const row = { confirmedPolicy: removalRules(spec) };
        const start = Date.parse("2026-03-01T00:00:00Z");
        const hour = (hours: number) => new Date(start + hours * 3_600_000);
        const now = hour(6 * 24);
        const version = (number: number, begunAt: Date, size: number) =>
          ({
            number: BigInt(number),
            begunAt,
            size: BigInt(size),
            damage: "",
            held: false,
            protectedUntil: null,
            usualSize: null,
            confirmedAt: null,
            protectedForMs: null,
            committedAt: begunAt,
          }) as unknown as LiveVersion;
        const live = [...ages].sort((a, b) => a - b).map((age, i) => version(i + 1, hour(age), bytes[i]!));
        const begun = at.map((hours) => hour(hours));
        const [own, ...others] = begun;
        const uploads = others.map((begunAt) => ({ state: "committing", begunAt }) as UploadRow);
        const plans = plansBeside(live, spec, own!, now, row, uploads);
        const sum = (versions: readonly LiveVersion[]) => versions.reduce((all, { size }) => all + size, 0n);
        const most = plans.map(({ keep }) => sum(keep)).reduce((a, b) => (a > b ? a : b));
        if (plans.some(({ keep }) => sum(keep) !== most)) seen.differ++;
        let peak = 0n;
        for (const order of permutations(begun.map((_, i) => i))) {
          let state = live;
          for (const [place, upload] of order.entries()) {
            const { remove } = rotationOf(state, spec, begun[upload]!, now, [], row);
            const stays = state.filter((v) => !remove.includes(v));
            const old = sum(stays.filter((v) => live.includes(v)));
            if (old > peak) peak = old;
            t.true(old <= most);
            state = [...stays, version(live.length + 1 + place, begun[upload]!, 0)];
          }
        }
        t.is(peak, most, "the room is exact");
        seen.exact++;
      },
    ),
    { numRuns: 500 },
  );
  for (const [what, count] of Object.entries(seen)) t.true(count > 20, `${what}: ${count}`);
});

function permutations(items: readonly number[]): number[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item) => permutations(items.filter((other) => other !== item)).map((rest) => [item, ...rest]));
}
