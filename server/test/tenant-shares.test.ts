/** Shares of organizations: places of segments and bytes a second, on a clock that the test moves. */

import { chunked, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { DEFAULT_TIMINGS } from "../../client-sdk/src/connection/timings.ts";
import { COMES_AGAIN_MS, PLACE_WAIT_MS, TenantShares } from "../src/app/uploads/tenant-shares.ts";
import { writeSegment } from "../src/app/uploads/write-segment.ts";
import { DomainError } from "../src/domain/errors.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";
import { ShareTime } from "./support/share-time.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const never = new AbortController().signal;
const turn = async () => await new Promise((resolve) => setImmediate(resolve));

test("places go round in the order of asking, and one that was given up is nobody's", async (t) => {
  const time = new ShareTime();
  const shares = new TenantShares(time);
  const limits = { name: "acme", maxParallelSegments: 2, maxUploadRate: undefined };
  const [one, two] = [await shares.enter(limits, never), await shares.enter(limits, never)];
  const order: string[] = [];
  const gone = new AbortController();
  const enter = async (who: string, signal: AbortSignal) => {
    const leave = await shares.enter(limits, signal);
    order.push(who);
    return leave;
  };
  const third = enter("third", never);
  const fourth = enter("fourth", gone.signal);
  const fifth = enter("fifth", never);
  await turn();
  t.deepEqual(order, []);
  (await shares.enter({ ...limits, name: "other" }, never))();
  gone.abort(new Error("the client is gone"));
  await t.throwsAsync(fourth, { message: "the client is gone" });
  one();
  (await third)();
  const last = await fifth;
  t.deepEqual(order, ["third", "fifth"]);
  last();
  two();
  for (let n = 0; n < 5; n++) (await shares.enter(limits, never))();
});

test("who waits too long for a place is asked to come again", async (t) => {
  const time = new ShareTime();
  const shares = new TenantShares(time);
  const limits = { name: "acme", maxParallelSegments: 1, maxUploadRate: undefined };
  const leave = await shares.enter(limits, never);
  const waiting = shares.enter(limits, never);
  await turn();
  time.advance(PLACE_WAIT_MS);
  const error = await t.throwsAsync(waiting, { instanceOf: DomainError });
  t.like(error, { reason: "RATE_LIMITED", retryAfterMs: 1000, metadata: { budget: "organization", limit: "1" } });
  leave();
  (await shares.enter(limits, never))();
});

test("bytes go on at the rate of the organization, whoever sends them, and others wait for nothing", async (t) => {
  const time = new ShareTime();
  time.runs = true;
  const shares = new TenantShares(time);
  const limits = { name: "acme", maxParallelSegments: undefined, maxUploadRate: BigInt(MIB) };
  time.now = 60_000;
  for (let n = 0; n < 61; n++) await shares.pace(limits, MIB, never);
  t.is(time.now - 60_000, 60_000, "61 MiB at 1 MiB a second, the first of them saved up");
  const before = time.slept.length;
  await shares.pace({ ...limits, name: "other" }, MIB / 2, never);
  await shares.pace({ ...limits, maxUploadRate: undefined }, 100 * MIB, never);
  t.is(time.slept.length, before);
});

test("a tenant that has its places full, or is slow, leaves the line to the others", async (t) => {
  const { h } = t.context;
  const time = new ShareTime();
  const deps = { ...h.deps, shares: new TenantShares(time) };
  h.organizations.set("acme", { name: "acme", maxTotalSize: undefined, maxParallelSegments: 1 });
  h.organizations.set("slow", { name: "slow", maxTotalSize: undefined, maxUploadRate: BigInt(MIB) });
  for (const [name, organization] of [
    ["a", "acme"],
    ["b", "acme"],
    ["c", ""],
    ["d", "slow"],
  ] as const)
    h.add({ name, organization });
  const message = openpgpMessage(2 * MIB);
  const begun = async (name: string) => {
    const { upload } = await h.begin(name);
    return { id: upload.id, segments: cutSegments(message, Number(upload.segmentSize)) };
  };
  const write = async (of: Awaited<ReturnType<typeof begun>>, index: number, body?: AsyncIterable<Uint8Array>) => {
    const segment = of.segments[index]!;
    const bytes = body ?? chunked(segment.bytes);
    return await writeSegment(deps, h.admin, { uploadId: of.id, ...segment }, bytes, never);
  };
  const [a, b, c, d] = [await begun("a"), await begun("b"), await begun("c"), await begun("d")];

  const open = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  async function* held() {
    reading.resolve();
    await open.promise;
    yield* chunked(a.segments[0]!.bytes);
  }
  const first = write(a, 0, held());
  await reading.promise;
  const second = write(b, 0);
  await write(c, 0);
  while (time.slept.length === 0) await turn();
  time.advance(PLACE_WAIT_MS);
  await refused(t, "RATE_LIMITED", second);
  const third = write(b, 0);
  open.resolve();
  await first;
  await third;

  time.runs = true;
  const began = time.now;
  for (const index of d.segments.keys()) await write(d, index);
  const waited = time.now - began;
  t.true(waited >= 1000 && waited <= 2100, `${waited} ms for 2 MiB at 1 MiB a second, one saved up`);
});

test("who is asked to come again counts as waiting until it does, and never for itself", async (t) => {
  const time = new ShareTime();
  const shares = new TenantShares(time);
  const limits = { name: "acme", maxParallelSegments: 1, maxUploadRate: undefined };
  t.is(shares.pressedMs("acme", "one"), undefined);
  const leave = await shares.enter(limits, never, { upload: "one" });
  t.is(shares.pressedMs("acme", "one"), undefined);
  const own = shares.enter(limits, never, { upload: "one", waitMs: 60_000 });
  const asked = t.throwsAsync(shares.enter(limits, never, { upload: "two" }));
  await turn();
  time.advance(PLACE_WAIT_MS);
  await asked;
  t.is(shares.pressedMs("acme", "two"), PLACE_WAIT_MS, "the first waits for its second segment");
  time.advance(5000);
  t.is(shares.pressedMs("acme", "one"), PLACE_WAIT_MS + 5000, "two will come again");
  const again = shares.enter(limits, never, { upload: "two" });
  await turn();
  time.advance(5000);
  t.is(shares.pressedMs("acme", "one"), PLACE_WAIT_MS + 10_000);
  leave();
  (await own)();
  const two = await again;
  t.is(shares.pressedMs("acme", "two"), undefined);
  const gone = t.throwsAsync(shares.enter(limits, never, { upload: "three" }));
  await turn();
  time.advance(PLACE_WAIT_MS);
  await gone;
  t.is(shares.pressedMs("acme", "two"), PLACE_WAIT_MS);
  time.advance(DEFAULT_TIMINGS.retryMaxMs);
  t.is(shares.pressedMs("acme", "two"), PLACE_WAIT_MS + DEFAULT_TIMINGS.retryMaxMs, "the client still waits");
  time.advance(COMES_AGAIN_MS - DEFAULT_TIMINGS.retryMaxMs);
  t.is(shares.pressedMs("acme", "two"), undefined, "it does not come again");
  two();
});

test("who is asked to come again presses nobody while a place is free for it", async (t) => {
  const time = new ShareTime();
  const shares = new TenantShares(time);
  const limits = { name: "acme", maxParallelSegments: 2, maxUploadRate: undefined };
  const one = await shares.enter(limits, never, { upload: "one" });
  const two = await shares.enter(limits, never, { upload: "two" });
  const asked = t.throwsAsync(shares.enter(limits, never, { upload: "three" }));
  await turn();
  time.advance(PLACE_WAIT_MS);
  await asked;
  t.is(shares.pressedMs("acme", "one"), PLACE_WAIT_MS);
  two();
  t.is(shares.pressedMs("acme", "one"), undefined);
  const four = await shares.enter(limits, never, { upload: "four" });
  t.is(shares.pressedMs("acme", "one"), PLACE_WAIT_MS, "somebody else took it");
  four();
  one();
});

test("a slow segment gives its place to another upload, and not to its own next segment", async (t) => {
  const { h } = t.context;
  const time = new ShareTime();
  const deps = { ...h.deps, shares: new TenantShares(time) };
  h.organizations.set("acme", { name: "acme", maxTotalSize: undefined, maxParallelSegments: 1 });
  for (const name of ["a", "b", "c"]) h.add({ name, organization: "acme" });
  const message = openpgpMessage(2 * MIB);
  const begun = async (name: string) => {
    const { upload } = await h.begin(name);
    return { id: upload.id, segments: cutSegments(message, Number(upload.segmentSize)) };
  };
  const [a, b] = [await begun("a"), await begun("b")];
  const write = async (of: typeof a, index: number, body: AsyncIterable<Uint8Array>) =>
    await writeSegment(deps, h.admin, { uploadId: of.id, ...of.segments[index]! }, body, never);
  async function* slow(wakes: PromiseWithResolvers<void>) {
    for await (const chunk of chunked(a.segments[0]!.bytes, 10_000)) {
      wakes.resolve();
      yield chunk;
      await turn();
      time.advance(1000);
      await turn();
    }
  }
  const alone = Promise.withResolvers<void>();
  const first = write(a, 0, slow(alone));
  await alone.promise;
  const own = write(a, 1, chunked(a.segments[1]!.bytes)).catch((error: unknown) => error);
  await first;
  await own;
  const pressed = Promise.withResolvers<void>();
  const c = await begun("c");
  const held = write(c, 0, slow(pressed));
  await pressed.promise;
  const waits = (async () => {
    for (;;) {
      const done = await write(b, 0, chunked(b.segments[0]!.bytes)).catch((error: unknown) => error as DomainError);
      if (!(done instanceof DomainError)) return done;
    }
  })();
  await refused(t, "SEGMENT_IDLE", held);
  t.is((await waits).index, 0);
});
