import { sweep } from "@strongroom/server/app/upkeep/sweep";
import { holdVersion, releaseVersion } from "@strongroom/server/app/versions/hold-version";
import { deleteVersion, readVersion } from "@strongroom/server/app/versions/versions";
import type { CollectionSpec } from "@strongroom/server/domain/configuration";
import type { Random } from "@strongroom/testkit/random";
import { MIB } from "../../server/test/support/harness.ts";
import type { Client } from "./client.ts";
import type { World } from "./world.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Moves the clock, forward or back. */
export async function moveClock(world: World): Promise<void> {
  const { random, faults, clock } = world;
  const ms = random.weighted([
    [4, random.int(1, 5 * MINUTE)],
    [3, random.int(10 * MINUTE, 20 * MINUTE)],
    [1, random.int(HOUR, 30 * HOUR)],
    [0.6, random.int(DAY, 4 * DAY)],
    [0.8, -random.int(1000, 2 * HOUR)],
  ]);
  if (ms < 0) {
    faults.count("clock backward");
    world.oracle.loosen();
  }
  if (ms >= DAY) faults.count("clock forward by a day or more");
  // A request cannot be under way in the network for hours.
  if (ms > HOUR) await world.lateEffects();
  world.note(`the clock moves by ${ms} ms`);
  clock.now = new Date(clock.now.getTime() + ms);
}

/** Begins it on some server. */
export async function beginSweep(world: World): Promise<void> {
  if (world.busy > 0) world.faults.count("sweep while others work");
  const { mayDelete } = world;
  await world.begin(
    { name: "sweep", replica: world.random.int(0, world.replicas - 1), cause: { sweeps: true } },
    (deps) => sweep(deps, mayDelete),
    ({ error }) => {
      // Single things may fail and are tried again; the sweep as a whole only with the database.
      if (
        error !== undefined &&
        !["DATABASE_UNAVAILABLE", "STORE_UNAVAILABLE"].includes((error as { reason?: string }).reason ?? "")
      ) {
        world.fail(`sweep: ${error.message}`);
      }
    },
  );
}

/** Changes a collection's limits, as a new configuration does. */
export function changeLimits(world: World): void {
  const { random, faults } = world;
  const spec = world.specs.get(random.pick([...world.specs.keys()]))!;
  const next = { ...spec, ...limits(random) };
  const [now, then] = [spec.maxCollectionSize, next.maxCollectionSize];
  if (then !== now) faults.count(then < now ? "limits lowered" : "limits raised");
  if (spec.minRetentionMs !== next.minRetentionMs) faults.count("retention changed");
  world.note(
    `limits of ${spec.name}: ${next.maxBackupsCount} versions, hard ${then}, retention ` +
      `${next.minRetentionMs ?? "none"}`,
  );
  world.configure(next);
}

/** Begins it on some server. */
export async function beginDeletion(world: World): Promise<void> {
  const { random, faults } = world;
  const live = world.oracle.rows.versions.filter((v) => v.state === "live").toSorted((a, b) => a.number - b.number);
  if (live.length === 0) return;
  const { collection: name, number } = random.pick(live);
  await world.begin(
    {
      name: `delete ${number}`,
      replica: random.int(0, world.replicas - 1),
      cause: { deletes: { collection: name, number } },
    },
    (deps, by) => deleteVersion(deps, by, { collection: name, number: BigInt(number) }),
    ({ error, value }) => {
      if (value !== undefined) faults.count("version deleted");
      const reason = error === undefined ? undefined : (error as { reason?: string }).reason;
      if (reason !== undefined && !["VERSION_PROTECTED", "COLLECTION_BUSY", "DATABASE_UNAVAILABLE"].includes(reason)) {
        world.fail(`delete ${number}: ${error!.message}`);
      }
    },
  );
}

/** Holds a version, or releases one that is held, on some server. */
export async function beginHold(world: World): Promise<void> {
  const { random, faults } = world;
  const live = world.oracle.rows.versions.filter((v) => v.state === "live").toSorted((a, b) => a.number - b.number);
  if (live.length === 0) return;
  const { collection: name, number, held } = random.pick(live);
  const version = { collection: name, number: BigInt(number) };
  await world.begin(
    {
      name: `${held ? "release" : "hold"} ${number}`,
      replica: random.int(0, world.replicas - 1),
      cause: { holds: { collection: name, number } },
    },
    (deps, by) =>
      held ? releaseVersion(deps, by, version) : holdVersion(deps, by, { ...version, reason: "as it is" }),
    ({ error, value }) => {
      if (value !== undefined) faults.count(held ? "version released" : "version held");
      const reason = error === undefined ? undefined : (error as { reason?: string }).reason;
      // Rotation or somebody else removed it in between.
      if (reason !== undefined && !["VERSION_NOT_FOUND", "COLLECTION_BUSY", "DATABASE_UNAVAILABLE"].includes(reason))
        world.fail(`hold ${number}: ${error!.message}`);
    },
  );
}

/** Reads a version that is live when the reading begins; for a day after its removal it can still be read. */
export async function beginReading(world: World, clients: readonly Client[]): Promise<void> {
  const live = world.oracle.rows.versions.filter((v) => v.state === "live").toSorted((a, b) => a.number - b.number);
  if (live.length === 0) return;
  const { id, number, collection: name } = world.random.pick(live);
  const { message } = clients.find((c) => c === world.intents.get(id))!;
  const begun = world.clock.now.getTime();
  await world.begin(
    { name: `read ${number}`, replica: world.random.int(0, world.replicas - 1) },
    async (deps, by) => {
      const signal = new AbortController().signal;
      const read = await readVersion(
        deps,
        by,
        { collection: name, number: BigInt(number), offset: 0n, limit: 0n },
        signal,
      );
      return Buffer.concat(await Array.fromAsync(read.body));
    },
    ({ value, error }) => {
      if (value !== undefined && !value.equals(message)) world.fail(`version ${number} is read with other bytes`);
      const reason = (error as { reason?: string } | undefined)?.reason;
      const wasGone = Math.abs(world.clock.now.getTime() - begun) >= DAY - HOUR;
      const allowed = [
        "DATABASE_UNAVAILABLE",
        "STORE_UNAVAILABLE",
        ...(wasGone ? ["VERSION_NOT_FOUND", "VERSION_DAMAGED"] : []),
      ];
      if (reason !== undefined && !allowed.includes(reason)) world.fail(`read ${number}: ${error!.message}`);
    },
  );
}

/** Some limits of a collection. */
export function limits(random: Random): Partial<CollectionSpec> {
  const maxBackupsCount = random.int(1, 4);
  const soft = random.pick([MIB / 4, MIB, 1.5 * MIB, 2 * MIB]);
  return {
    maxBackupsCount,
    maxOneVersionSize: BigInt(soft),
    maxCollectionSize: BigInt(maxBackupsCount * soft + random.pick([0, MIB / 2, 2 * MIB])),
    maxParallelUploads: random.pick([1, 2, 2, 3]),
    minRetentionMs: random.pick([undefined, undefined, HOUR, 3 * DAY]),
  };
}
