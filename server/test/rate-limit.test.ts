import test from "ava";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import type { Database } from "../src/app/ports/database.ts";
import { LoginBudget } from "../src/app/sessions/login-budget.ts";
import { ProcessBudget } from "../src/calls/budgets.ts";
import { DomainError } from "../src/domain/errors.ts";
import { budgetHolder, formatRateLimit, parseRateLimit, type RateLimit, takeToken } from "../src/domain/rate-limit.ts";
import { refused, TestClock } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const forms: [string, RateLimit | undefined][] = [
  ["20/2m", { count: 20, perMs: 120_000 }],
  ["1/1s", { count: 1, perMs: 1000 }],
  ["6000/10s", { count: 6000, perMs: 10_000 }],
  ["1000000/24h", { count: 1_000_000, perMs: 86_400_000 }],
  ["off", undefined],
];

for (const [text, limit] of forms) {
  test(`a limit is written ${text}`, (t) => {
    t.deepEqual(parseRateLimit(text), limit);
    if (limit !== undefined) t.deepEqual(parseRateLimit(formatRateLimit(limit)), limit);
  });
}

for (const text of [
  "",
  "20",
  "/1m",
  "0/1m",
  "-1/1m",
  "1000001/1m",
  "20/",
  "20/m",
  "20/0s",
  "20/500ms",
  "20/25h",
  "x",
]) {
  test(`no limit is written ${JSON.stringify(text)}`, (t) => {
    t.throws(() => parseRateLimit(text), { instanceOf: RangeError });
  });
}

test("a bucket gives its count at once, then one for each part of its time", (t) => {
  const limit = { count: 3, perMs: 3000 };
  let fullAt: number | undefined;
  const take = (now: number) => {
    const taken = takeToken(limit, fullAt, now);
    if ("fullAt" in taken) fullAt = taken.fullAt;
    return "fullAt" in taken ? 0 : taken.retryAfterMs;
  };
  t.deepEqual([take(0), take(0), take(0), take(0)], [0, 0, 0, 1000]);
  t.is(take(400), 600);
  t.is(take(1000), 0);
  t.is(take(1000), 1000);
  t.deepEqual([take(1e9), take(1e9), take(1e9), take(1e9)], [0, 0, 0, 1000], "it never holds more than its count");
});

test("over any time no more passes than the count and what was given back; who waits as asked is let in", (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1000, max: 100_000 }),
      fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 1, maxLength: 200 }),
      (count, perMs, pauses) => {
        const limit = { count, perMs };
        let fullAt: number | undefined;
        let now = 0;
        let passed = 0;
        for (const pause of pauses) {
          now += pause;
          const taken = takeToken(limit, fullAt, now);
          if ("fullAt" in taken) {
            fullAt = taken.fullAt;
            passed++;
          } else {
            t.true(taken.retryAfterMs >= 1);
            t.true("fullAt" in takeToken(limit, fullAt, now + taken.retryAfterMs));
          }
        }
        t.true(passed <= count + now / (perMs / count) + 1e-6);
      },
    ),
  );
});

const holders: [string, string][] = [
  ["192.0.2.7", "192.0.2.7"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::", "2001:db8:1:2::/64"],
  ["2001:DB8:1:2::ffff", "2001:db8:1:2::/64"],
  ["2001:db8::1", "2001:db8:0:0::/64"],
  ["2001:0db8:0000:0000::1", "2001:db8:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["1::", "1:0:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ["64:ff9b::192.0.2.33", "64:ff9b:0:0::/64"],
  ["1:2:3:4:5:6:192.0.2.33", "1:2:3:4::/64"],
  ["", ""],
];

for (const [address, holder] of holders) {
  test(`the budget of ${address} is that of ${holder}`, (t) => t.is(budgetHolder(address), holder));
}

const reasonOf = (work: () => void): string => {
  try {
    work();
    return "taken";
  } catch (error) {
    return error instanceof DomainError ? error.reason : "fault";
  }
};

test("addresses have budgets of their own; a whole IPv6 network has one", (t) => {
  const budget = new ProcessBudget("requests", { count: 2, perMs: 2000 }, () => 0);
  const take = (address: string) => reasonOf(() => budget.take(address));
  t.deepEqual([take("192.0.2.1"), take("192.0.2.1"), take("192.0.2.1")], ["taken", "taken", "RATE_LIMITED"]);
  t.is(take("192.0.2.2"), "taken");
  const network = Array.from({ length: 1000 }, (_, i) => take(`2001:db8::${i.toString(16)}`));
  t.is(network.filter((outcome) => outcome === "taken").length, 2);
});

test("the refusal says which budget, which limit and when", (t) => {
  const budget = new ProcessBudget("health", { count: 1, perMs: 60_000 }, () => 0);
  budget.take("192.0.2.1");
  const error = t.throws(() => budget.take("192.0.2.1"), { instanceOf: DomainError }) as DomainError;
  t.deepEqual(error.metadata, { budget: "health", limit: "1/1m" });
  t.is(error.retryAfterMs, 60_000);
});

test("many addresses take no memory beyond the bound, and who is heard of is not forgotten", (t) => {
  const budget = new ProcessBudget("requests", { count: 1, perMs: 60_000 }, () => 0, 100);
  budget.take("192.0.2.1");
  for (let i = 0; i < 10_000; i++) budget.take(`2001:db8:${(i >> 8).toString(16)}:${(i & 255).toString(16)}::1`);
  t.is(budget.size, 100);
  t.is(
    reasonOf(() => budget.take("192.0.2.1")),
    "taken",
    "the one longest unheard of was forgotten",
  );
  t.is(
    reasonOf(() => budget.take("2001:db8:27:f::1")),
    "RATE_LIMITED",
  );
});

test("off is off", async (t) => {
  const budget = new ProcessBudget("requests", undefined, () => 0);
  for (let i = 0; i < 1000; i++) budget.take("192.0.2.1");
  t.is(budget.size, 0);
  const logins = new LoginBudget(undefined as never, undefined, () => 0);
  await logins.take("192.0.2.1");
  await logins.giveBack("192.0.2.1");
});

test("two servers over one database share the budget of logins, to the token", async (t) => {
  const clock = new TestClock();
  const database = await openMemoryDatabase(() => clock.now);
  t.teardown(async () => await database.close());
  let local = 0;
  const limit = { count: 7, perMs: 10_000 };
  const servers = [1, 2].map(() => new LoginBudget(database, limit, () => local));
  const flood = async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 40 }, (_, i) => servers[i % 2]!.take("192.0.2.1")));
    return outcomes.filter((o) => o.status === "fulfilled").length;
  };
  t.is(await flood(), 7);
  const error = await refused(t, "RATE_LIMITED", servers[0]!.take("192.0.2.1"));
  t.is(error.retryAfterMs, Math.ceil(10_000 / 7));
  t.deepEqual(error.metadata, { budget: "login", limit: "7/10s" });
  await servers[0]!.take("192.0.2.2");

  // What one gives back, the other can take once its wait time is over.
  await servers[0]!.giveBack("192.0.2.1");
  await servers[0]!.take("192.0.2.1");
  await refused(t, "RATE_LIMITED", servers[0]!.take("192.0.2.1"));
  await servers[1]!.giveBack("192.0.2.1");
  local += 1429;
  await servers[0]!.take("192.0.2.1");

  clock.advance(1429);
  local += 1429;
  t.is(await flood(), 1, "one was given back");
  clock.advance(60_000);
  local += 60_000;
  t.is(await flood(), 7, "never more than the count");
});

test("a budget that is whole again leaves no row", async (t) => {
  const clock = new TestClock();
  const database = await openMemoryDatabase(() => clock.now);
  t.teardown(async () => await database.close());
  const logins = new LoginBudget(database, { count: 2, perMs: 2000 }, () => 0);
  const rows = async () =>
    (await database.query(sql`select holder from login_budgets order by holder`)).map((r) => r.holder);
  await logins.take("192.0.2.1");
  await logins.take("192.0.2.2");
  await logins.take("192.0.2.2");
  clock.advance(1000);
  await database.transaction(async (tx) => await tx.budgets.deleteFull(tx.now));
  t.deepEqual(await rows(), ["192.0.2.2"]);
  await logins.giveBack("192.0.2.2");
  await database.transaction(async (tx) => await tx.budgets.deleteFull(tx.now));
  t.deepEqual(await rows(), []);
  await logins.giveBack("192.0.2.9");
  t.deepEqual(await rows(), [], "giving back what nobody took makes nothing");
});

test("a flood from one address that is refused does not ask the database", async (t) => {
  const clock = new TestClock();
  const database = await openMemoryDatabase(() => clock.now);
  t.teardown(async () => await database.close());
  let asked = 0;
  const counted = new Proxy(database, {
    get: (target, name) => {
      if (name === "transaction") asked++;
      const value = target[name as keyof typeof target] as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  let local = 0;
  const logins = new LoginBudget(counted, { count: 1, perMs: 10_000 }, () => local);
  await logins.take("192.0.2.1");
  for (let i = 0; i < 100; i++) await refused(t, "RATE_LIMITED", logins.take("192.0.2.1"));
  t.is(asked, 1, "the bucket of the process itself is empty");
  const other = new LoginBudget(counted, { count: 1, perMs: 10_000 }, () => local);
  for (let i = 0; i < 100; i++) await refused(t, "RATE_LIMITED", other.take("192.0.2.1"));
  t.is(asked, 2, "another process learns it from the database, once");
  local += 10_000;
  clock.advance(10_000);
  await other.take("192.0.2.1");
  t.is(asked, 3);
});

test("of many logins at once no more reach the database than the limit lets in", async (t) => {
  let waiting = 0;
  const never = async () => {
    waiting++;
    return await new Promise<never>(() => {});
  };
  const logins = new LoginBudget({ transaction: never } as unknown as Database, { count: 3, perMs: 60_000 }, () => 0);
  const refusals = Array.from({ length: 50 }, async () => await logins.take("192.0.2.1")).map(
    async (taken) =>
      await Promise.race([taken.catch(() => "refused"), new Promise((resolve) => setImmediate(resolve, "waits"))]),
  );
  t.is((await Promise.all(refusals)).filter((outcome) => outcome === "refused").length, 47);
  t.is(waiting, 3);
});
