import { setImmediate as turn } from "node:timers/promises";
import argon2 from "argon2";
import test from "ava";
import { Argon2Hasher, type HasherLimits } from "../src/adapters/argon2/argon2-hasher.ts";
import { DomainError } from "../src/domain/errors.ts";
import { costOf, USUAL_COST } from "../src/domain/password-cost.ts";
import { parsePasswordHash } from "../src/objects/password-hash.ts";

/**
 * The published example of existing installations, of the password "admin", without the padding that the loader strips.
 */
const EXISTING = "$argon2id$v=19$m=65536,t=1,p=4$znW/HOf8Ctdu+o5+mbTvDA$ZfUiDivAevOdY6wJabAoAPvc5kXlzlC6H68V6tef5F4";
/** As it stands in the `Secret` of an existing installation. */
const EXISTING_SECRET =
  "JGFyZ29uMmlkJHY9MTkkbT02NTUzNix0PTEscD00JHpuVy9IT2Y4Q3RkdStvNSttYlR2REE9PSRaZlVpRGl2QWV2T2RZNndKYWJBb0FQdmM1a1hsemxDNkg2OFY2dGVmNUY0PQ==";

const busy = (error: unknown) => error instanceof DomainError && error.reason === "LOGIN_BUSY";

test("a hash made here verifies, also after the loader has read it", async (t) => {
  const hasher = new Argon2Hasher();
  const hash = await hasher.hash("correct horse");
  t.regex(hash, /^\$argon2id\$v=19\$/);
  for (const parameter of ["m=65536", "t=1", "p=4"]) t.true(hash.split("$")[3]!.split(",").includes(parameter));
  t.true(await hasher.verify(hash, "correct horse"));
  t.true(await hasher.verify(parsePasswordHash(hash), "correct horse"));
  t.true(await hasher.verify(parsePasswordHash(Buffer.from(hash).toString("base64")), "correct horse"));
  t.false(await hasher.verify(hash, "correct horse "));
  t.false(await hasher.verify(hash, ""));
});

test("two hashes of one password differ, and the password is not in them", async (t) => {
  const hasher = new Argon2Hasher();
  const [one, two] = [await hasher.hash("correct horse"), await hasher.hash("correct horse")];
  t.not(one, two);
  t.false(one.includes("correct"));
});

test("the hash of an existing installation verifies", async (t) => {
  const hasher = new Argon2Hasher();
  t.is(parsePasswordHash(EXISTING_SECRET), EXISTING);
  t.true(await hasher.verify(EXISTING, "admin"));
  t.false(await hasher.verify(EXISTING, "Admin"));
});

test("the parameters are those of the hash, in any order", async (t) => {
  const hasher = new Argon2Hasher();
  const cheap = await argon2.hash("admin", { type: argon2.argon2id, memoryCost: 64, timeCost: 3, parallelism: 2 });
  t.true(await hasher.verify(cheap, "admin"));
  t.false(await hasher.verify(cheap, "Admin"));
  t.true(await hasher.verify(EXISTING.replace("t=1,p=4", "p=4,t=1"), "admin"));
  t.false(await hasher.verify(EXISTING.replace("t=1", "t=2"), "admin"), "with other parameters it is another hash");
});

test("where there is no hash, no password is right", async (t) => {
  const hasher = new Argon2Hasher();
  for (const password of ["", "admin", "undefined"]) t.false(await hasher.verify(undefined, password));
});

test("passwords beyond ASCII and of 1024 characters", async (t) => {
  const hasher = new Argon2Hasher();
  for (const password of ["pässwörd ✓ 漢字 🔑", "x".repeat(1024), "with\0NUL"]) {
    const hash = await hasher.hash(password);
    t.true(await hasher.verify(hash, password));
    t.false(await hasher.verify(hash, password.slice(0, 4)));
  }
});

test("who finds every place and the queue taken is asked to come later", async (t) => {
  const hasher = new Argon2Hasher({ running: 1, waiting: 2 });
  const taken = [1, 2, 3].map(async () => await hasher.verify(EXISTING, "admin"));
  const refused = await Promise.allSettled([
    hasher.verify(EXISTING, "admin"),
    hasher.verify(undefined, "x"),
    hasher.hash("x"),
  ]);
  for (const outcome of refused) {
    t.is(outcome.status, "rejected");
    if (outcome.status !== "rejected") continue;
    t.true(busy(outcome.reason));
    t.true((outcome.reason as DomainError).retryAfterMs! > 0);
  }
  t.deepEqual(await Promise.all(taken), [true, true, true], "those in time are answered");
  t.true(await hasher.verify(EXISTING, "admin"), "and there is room again");
});

test("those who wait are answered in the order they arrived", async (t) => {
  const hasher = new Argon2Hasher({ running: 1, waiting: 4 });
  const order: number[] = [];
  await Promise.all(
    [0, 1, 2, 3].map(async (number) => {
      await hasher.verify(EXISTING, "admin");
      order.push(number);
    }),
  );
  t.deepEqual(order, [0, 1, 2, 3]);
});

const BROKEN = [
  "no hash",
  "",
  "$argon2id$v=19$m=1,t=1,p=4$znW/HOf8Ctdu+o5+mbTvDA$ZfUiDivAevOdY6wJabAoAA",
  "$argon2id$v=19$m=65536,t=0,p=4$znW/HOf8Ctdu+o5+mbTvDA$ZfUiDivAevOdY6wJabAoAA",
  "$argon2id$v=19$m=65536,m=65536,p=4$znW/HOf8Ctdu+o5+mbTvDA$ZfUiDivAevOdY6wJabAoAA",
  "$argon2id$v=19$m=65536,t=1,p=4$znW/HOf8Ctdu+o5+mbTvDA",
  "$argon2i$v=19$m=65536,t=1,p=4$znW/HOf8Ctdu+o5+mbTvDA$ZfUiDivAevOdY6wJabAoAA",
];

/** A hasher that notes the parameters of every hash it computes. */
function counting(limits?: HasherLimits) {
  const computed: (string | undefined)[] = [];
  const hasher = new Argon2Hasher(limits, async (hash, password) => {
    computed.push(costOf(hash));
    return await argon2.verify(hash, password);
  });
  return { hasher, computed };
}

test("a hash that cannot be read has no password, after the work of one that can", async (t) => {
  const { hasher, computed } = counting();
  for (const broken of BROKEN) {
    t.false(await hasher.verify(broken, "admin"), broken);
    t.deepEqual(computed.splice(0), [USUAL_COST], broken);
  }
});

test("whatever the hash, the work is what was asked for, in one order", async (t) => {
  const cheap = await argon2.hash("admin", { type: argon2.argon2id, memoryCost: 64, timeCost: 3, parallelism: 2 });
  const costs = [USUAL_COST, costOf(cheap)!];
  const { hasher, computed } = counting();
  const cases: [string | undefined, string, boolean][] = [
    [EXISTING, "admin", true],
    [EXISTING, "wrong", false],
    [cheap, "admin", true],
    [cheap, "wrong", false],
    [undefined, "admin", false],
    ["no hash", "admin", false],
  ];
  for (const [hash, password, right] of cases) {
    t.is(await hasher.verify(hash, password, { costs }), right, `${hash} ${password}`);
    t.deepEqual(computed.splice(0), costs, `${hash} ${password}`);
  }
});

test("nothing is computed for who is gone, before or while they wait, and the others keep their turn", async (t) => {
  const { hasher, computed } = counting({ running: 1, waiting: 3 });
  const gone = AbortSignal.abort(new Error("gone before"));
  t.is((await t.throwsAsync(hasher.verify(EXISTING, "admin", { signal: gone })))!.message, "gone before");
  const leaving = new AbortController();
  const staying = new AbortController();
  const first = hasher.verify(EXISTING, "admin");
  const second = hasher.verify(EXISTING, "admin", { signal: leaving.signal });
  const third = hasher.verify(EXISTING, "wrong", { signal: staying.signal });
  leaving.abort(new Error("gone while waiting"));
  t.is((await t.throwsAsync(second))!.message, "gone while waiting");
  t.true(await first);
  t.false(await third);
  t.is(computed.length, 2);
  // Too late to change anything.
  staying.abort();
  t.true(await hasher.verify(EXISTING, "admin"), "the place is free");
});

test("a place is given back after an error", async (t) => {
  const hasher = new Argon2Hasher({ running: 1, waiting: 0 }, async (hash, password) => {
    if (password === "fails") throw new Error("out of memory");
    return await argon2.verify(hash, password);
  });
  await t.throwsAsync(hasher.verify(EXISTING, "fails"));
  // A turn for the place to be free.
  await turn();
  t.true(await hasher.verify(EXISTING, "admin"));
});

test("an error hands its place to who waits", async (t) => {
  const hasher = new Argon2Hasher({ running: 1, waiting: 2 }, async (hash, password) => {
    if (password === "fails") throw new Error("out of memory");
    return await argon2.verify(hash, password);
  });
  const outcomes = await Promise.allSettled([
    hasher.verify(EXISTING, "fails"),
    hasher.verify(EXISTING, "fails"),
    hasher.verify(EXISTING, "admin"),
  ]);
  t.deepEqual(
    outcomes.map((o) => o.status),
    ["rejected", "rejected", "fulfilled"],
  );
  t.true(await hasher.verify(EXISTING, "admin"));
});

test("a flood is bounded: of many at once only the places and the queue are served", async (t) => {
  const hasher = new Argon2Hasher({ running: 2, waiting: 3 });
  const outcomes = await Promise.allSettled(Array.from({ length: 40 }, () => hasher.verify(EXISTING, "wrong")));
  const served = outcomes.filter((o) => o.status === "fulfilled");
  t.is(served.length, 5);
  t.true(outcomes.every((o) => o.status === "fulfilled" || busy(o.reason)));
});
