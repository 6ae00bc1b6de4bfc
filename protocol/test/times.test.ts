import test from "ava";
import { formatTimeIn } from "../src/times.ts";

test("a time in a zone, summer and winter and the hour that comes twice", (t) => {
  const shown = (time: string, zone: string) => formatTimeIn(new Date(time), zone);
  t.is(shown("2026-01-31T02:00:59Z", "UTC"), "2026-01-31 02:00 UTC");
  t.is(shown("2026-01-31T23:30:00Z", "Europe/Warsaw"), "2026-02-01 00:30 +01:00");
  t.is(shown("2026-07-31T22:00:00Z", "Europe/Warsaw"), "2026-08-01 00:00 +02:00");
  t.is(shown("2026-10-25T00:30:00Z", "Europe/Warsaw"), "2026-10-25 02:30 +02:00");
  t.is(shown("2026-10-25T01:30:00Z", "Europe/Warsaw"), "2026-10-25 02:30 +01:00");
  t.is(shown("2026-01-31T02:00:00Z", "America/New_York"), "2026-01-30 21:00 -05:00");
  t.is(shown("2026-01-31T02:00:00Z", "Europe/London"), "2026-01-31 02:00 UTC");
  t.is(shown("2026-01-31T02:00:00Z", "Nowhere/Such"), "2026-01-31 02:00 UTC");
});
