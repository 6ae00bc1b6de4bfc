/**
 * Writes a time for people in a time zone, to the minute: `2026-01-31 02:00 UTC`, `2026-01-31 03:00 +01:00`. The offset
 * rather than the zone's name, since an hour that comes twice must not read the same both times.
 * @param timezone IANA name; one that is not known here counts as UTC.
 */
export function formatTimeIn(time: Date, timezone: string): string {
  const parts = partsIn(time, timezone) ?? partsIn(time, "UTC")!;
  const { year, month, day, hour, minute, timeZoneName = "GMT" } = parts;
  const offset = timeZoneName.replace(/^GMT/, "");
  return `${year}-${month}-${day} ${hour}:${minute} ${offset === "" || offset === "+00:00" ? "UTC" : offset}`;
}

function partsIn(time: Date, timeZone: string): Partial<Record<Intl.DateTimeFormatPartTypes, string>> | undefined {
  const fields = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" } as const;
  try {
    const format = new Intl.DateTimeFormat("en-US", {
      ...fields,
      timeZone,
      hourCycle: "h23",
      timeZoneName: "longOffset",
    });
    return Object.fromEntries(format.formatToParts(time).map(({ type, value }) => [type, value]));
  } catch {
    return undefined;
  }
}
