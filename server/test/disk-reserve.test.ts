/** What uploads leave free, by whose disk it is. */
import test from "ava";
import { DiskReserve, type ReservedDisk } from "../src/app/uploads/disk-reserve.ts";
import { DomainError } from "../src/domain/errors.ts";

const GIB = 1n << 30n;

const disk = (check: ReservedDisk["check"], free: bigint, reserve = GIB): ReservedDisk => ({
  check,
  freeBytes: async () => free,
  reserveBytes: async () => reserve,
});

test("the bytes of uploads are asked of the storage's disk alone, the reserve of both", async (t) => {
  const store = new DiskReserve([disk("storage", 10n * GIB), disk("database", 2n * GIB)]);
  const written = await store.take(9n * GIB);
  const full = await t.throwsAsync(store.require(1n), { instanceOf: DomainError });
  t.is(full.reason, "STORE_UNAVAILABLE");
  written();
  await store.require(9n * GIB);

  // A bucket beside the embedded database.
  const bucket = new DiskReserve([disk("database", 2n * GIB)]);
  await bucket.require(100n * GIB);
  const database = new DiskReserve([disk("database", GIB - 1n)]);
  const lacking = await t.throwsAsync(database.require(1n), { instanceOf: DomainError });
  t.is(lacking.reason, "DATABASE_UNAVAILABLE");
});

test("a disk that says nothing of itself refuses nothing", async (t) => {
  const away = async () => {
    throw new Error("ESTALE: stale file handle, statfs");
  };
  const reserve = new DiskReserve([{ ...disk("storage", 0n), freeBytes: away }]);
  await reserve.require(GIB);
  t.is(await reserve.lacking(GIB), undefined);
});

test("what the storage's disk has left beside the reserve and what is being written", async (t) => {
  const store = new DiskReserve([disk("database", GIB), disk("storage", 10n * GIB)]);
  t.is(await store.left(), 9n * GIB);
  await store.take(8n * GIB);
  t.is(await store.left(), GIB);
  t.is(await new DiskReserve([disk("storage", 1n)]).left(), 0n);
  t.is(await new DiskReserve([disk("database", GIB)]).left(), undefined);
});
