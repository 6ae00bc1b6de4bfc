import { bigint, customType, timestamp } from "drizzle-orm/pg-core";

/** Raw bytes; drivers give Buffer or Uint8Array, the domain sees Uint8Array. */
export const bytea = customType<{ data: Uint8Array; driverData: Uint8Array }>({
  dataType: () => "bytea",
  fromDriver: (value) => new Uint8Array(value.buffer, value.byteOffset, value.byteLength),
});

/** A count of bytes; bigint, since sizes pass 2^53 only in theory but sums of them are money. */
export const byteCount = (name: string) => bigint(name, { mode: "bigint" });

/** A point in time with time zone, to the millisecond. */
export const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: "date" });
