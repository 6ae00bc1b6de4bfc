/**
 * Rotation by periods (grandfather, father, son), with the meaning that Proxmox Backup Server gives it
 * (https://pbs.proxmox.com/docs/maintenance.html#pruning): rules run from `keepLast` to `keepYearly`, and each counts
 * only versions that no rule before it kept.
 */

/** The rules in the order in which they run; each keeps the newest version of so many periods. */
export const GFS_RULES = ["keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly"] as const;

/** One of {@link GFS_RULES}. */
export type GfsRule = (typeof GFS_RULES)[number];

/** How many periods each rule keeps; 0 for none. */
export type GfsCounts = Readonly<Record<GfsRule, number>>;

/** Why a version stays: the rule that keeps it, and the how many-th it is of that rule, from 1. */
export interface GfsReason {
  readonly rule: GfsRule;
  readonly place: number;
}

/** What the rules look at. */
export interface DatedVersion {
  readonly number: bigint;
  /** When it was begun, as far as that is known. */
  readonly at: Date;
}

/** Most versions that the rules can keep: the copies in the quota's arithmetic. */
export function gfsCopies(counts: GfsCounts): number {
  return GFS_RULES.reduce((sum, rule) => sum + counts[rule], 0);
}

/**
 * The versions that stay, by number, each with its reason.
 *
 * A version that lost to a newer one of the same period under one rule is lost for the rules after it too, as in
 * Proxmox Backup Server: of 31 January and 1 February in one week only the newer stays for `keepWeekly`, and January is
 * then kept by the newest version of an earlier week.
 * @param newestFirst by number, the newest first.
 * @param timezone IANA name; hours, days, weeks (ISO 8601), months and years are those of its clocks.
 */
export function keptByGfs(
  newestFirst: readonly DatedVersion[],
  counts: GfsCounts,
  timezone: string,
): Map<bigint, GfsReason> {
  const local = localTimes(timezone);
  const dated = newestFirst.map(({ number, at }) => {
    let known: LocalTime | undefined;
    // Asked for only where a rule by time looks at it: a time zone's arithmetic is slow.
    const localTime = () => (known ??= local(at));
    return { number, localTime };
  });
  const kept = new Map<bigint, GfsReason>();
  const lost = new Set<bigint>();
  for (const rule of GFS_RULES) {
    if (counts[rule] === 0) continue;
    const periodOf = ({ number, localTime }: (typeof dated)[number]) => PERIODS[rule](localTime, number);
    const before = new Set(dated.filter((version) => kept.has(version.number)).map(periodOf));
    const mine = new Set<string>();
    for (const version of dated) {
      if (kept.has(version.number) || lost.has(version.number)) continue;
      const period = periodOf(version);
      if (before.has(period)) continue;
      if (mine.has(period)) {
        lost.add(version.number);
        continue;
      }
      if (mine.size >= counts[rule]) break;
      mine.add(period);
      kept.set(version.number, { rule, place: mine.size });
    }
  }
  return kept;
}

/** An instant as the clocks of a place show it. */
interface LocalTime {
  readonly year: number;
  /** 1 to 12 */
  readonly month: number;
  readonly day: number;
  readonly hour: number;
}

/** The period that a version falls into under each rule. Under `keepLast` every version is one of its own. */
const PERIODS: Readonly<Record<GfsRule, (at: () => LocalTime, number: bigint) => string>> = {
  keepLast: (_, number) => String(number),
  keepHourly: (at) => `${day(at())}T${at().hour}`,
  keepDaily: (at) => day(at()),
  keepWeekly: (at) => isoWeek(at()),
  keepMonthly: (at) => `${at().year}-${at().month}`,
  keepYearly: (at) => String(at().year),
};

const day = ({ year, month, day }: LocalTime) => `${year}-${month}-${day}`;

function localTimes(timezone: string): (instant: Date) => LocalTime {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    calendar: "gregory",
    numberingSystem: "latn",
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
  });
  return (instant) => {
    const part = new Map(format.formatToParts(instant).map(({ type, value }) => [type, Number(value)]));
    return { year: part.get("year")!, month: part.get("month")!, day: part.get("day")!, hour: part.get("hour")! };
  };
}

/** Year and number of the week by ISO 8601: weeks begin on Monday, and belong to the year of their Thursday. */
function isoWeek({ year, month, day }: LocalTime): string {
  const date = new Date(Date.UTC(year, month - 1, day));
  const daysSinceMonday = (date.getUTCDay() + 6) % 7;
  const thursday = new Date(date.getTime() + (3 - daysSinceMonday) * DAY_MS);
  const firstDay = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  return `${thursday.getUTCFullYear()}-W${Math.floor((thursday.getTime() - firstDay) / (7 * DAY_MS)) + 1}`;
}

const DAY_MS = 86_400_000;
