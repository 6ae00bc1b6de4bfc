import { readFile } from "node:fs/promises";
import test from "ava";
import fc from "fast-check";
import { type DatedVersion, GFS_RULES, type GfsCounts, gfsCopies, keptByGfs } from "../src/domain/gfs.ts";

/** What Proxmox Backup Server's own prune simulator (3.2.4) keeps of some histories, by number of the version. */
interface Table {
  readonly title: string;
  readonly timezone: string;
  readonly begun: readonly string[];
  readonly counts: GfsCounts;
  readonly kept: Readonly<Record<string, string>>;
}

const TABLES = JSON.parse(
  await readFile(new URL("fixtures/prune-tables.json", import.meta.url), "utf8"),
) as readonly Table[];

function newestFirst(begun: readonly Date[]): DatedVersion[] {
  return begun.map((at, index) => ({ number: BigInt(index + 1), at })).reverse();
}

for (const { title, timezone, begun, counts, kept } of TABLES) {
  test(`as Proxmox Backup Server: ${title}`, (t) => {
    const found = keptByGfs(newestFirst(begun.map((at) => new Date(at))), counts, timezone);
    t.deepEqual(
      Object.fromEntries([...found].map(([number, { rule, place }]) => [String(number), `${rule} ${place}`])),
      kept,
    );
  });
}

const counts = fc.record(
  Object.fromEntries(GFS_RULES.map((rule) => [rule, fc.integer({ min: 0, max: 6 })])) as Record<
    (typeof GFS_RULES)[number],
    fc.Arbitrary<number>
  >,
);
const times = fc
  .array(fc.date({ min: new Date("2024-01-01"), max: new Date("2026-12-31"), noInvalidDate: true }), { maxLength: 80 })
  .map((dates) => dates.sort((a, b) => a.getTime() - b.getTime()));

test("never more than the copies of the quota, and the newest whenever anything is kept", (t) => {
  fc.assert(
    fc.property(times, counts, (begun, policy) => {
      const kept = keptByGfs(newestFirst(begun), policy, "Europe/Berlin");
      t.true(kept.size <= gfsCopies(policy));
      if (begun.length > 0 && gfsCopies(policy) > 0) t.true(kept.has(BigInt(begun.length)));
    }),
  );
});

test("rotating after each backup keeps what rotating once would keep of the last periods", (t) => {
  const policy = { keepLast: 2, keepHourly: 0, keepDaily: 7, keepWeekly: 4, keepMonthly: 6, keepYearly: 0 };
  const start = Date.parse("2026-01-01T03:00:00Z");
  let live: DatedVersion[] = [];
  for (let day = 0; day < 400; day++) {
    live = [{ number: BigInt(day + 1), at: new Date(start + day * 86_400_000) }, ...live];
    const kept = keptByGfs(live, policy, "UTC");
    live = live.filter((version) => kept.has(version.number));
  }
  t.is(live.length, gfsCopies(policy));
  // The last day is 2027-02-04: December to July are the months that neither days nor weeks have a version of. The
  // newest of July's last whole week stays for it; the days after lost to 2 August, the newest of their week.
  t.is(live.at(-1)?.at.toISOString(), "2026-07-26T03:00:00.000Z");
});
