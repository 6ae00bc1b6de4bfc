import { listVersions, readVersion } from "@strongroom/server/app/versions/versions";
import { INSTALLATION_KEY, manifestKey } from "@strongroom/server/domain/object-keys";
import { MIB } from "../../server/test/support/harness.ts";
import type { Client } from "./client.ts";
import { beginSweep } from "./events.ts";
import type { World } from "./world.ts";

const HOUR = 3_600_000;

/** Lets a client go on until it has its version or a refusal, and nothing else. */
export async function finish(world: World, client: Client): Promise<void> {
  for (let tries = 0; tries < 12 && !client.over && client.acknowledged === undefined; tries++) {
    await (client.uploadId === undefined ? client.create() : client.isSent ? client.commit() : client.send());
    await world.drain();
  }
}

/** No more faults. Some clients go on to the end, others are never heard of again. */
export async function settleDown(world: World, clients: readonly Client[]): Promise<void> {
  const { random } = world;
  world.faults.rate = 0;
  await world.lateEffects();
  await world.drain();
  for (const client of random.shuffled(clients)) {
    if (client.over || client.acknowledged !== undefined || random.chance(0.3)) continue;
    await finish(world, client);
  }
  const sweepOnce = async () => {
    await beginSweep(world);
    await world.drain();
  };
  pass(world, (rows) => rows.uploads.map((u) => u.expires));
  await sweepOnce();
  await sweepOnce();
}

/** Moves the clock a day on, at least past these times: it may have been moved back. */
function pass(world: World, times: (rows: World["oracle"]["rows"]) => number[]): void {
  const day = world.clock.now.getTime() + 25 * HOUR;
  world.clock.now = new Date(Math.max(day, ...times(world.oracle.rows).map((time) => time + 1)));
}

/**
 * What must hold in the end: nothing is open or reserved, what was acknowledged is there, and the store holds exactly
 * that.
 */
export async function checkEnd(world: World, clients: readonly Client[]): Promise<void> {
  const { rows } = world.oracle;
  const open = rows.uploads.filter((u) => u.state === "open" || u.state === "committing" || u.reserved > 0);
  if (open.length > 0)
    world.fail(`past every lease and a sweep, ${open[0]!.id} is ${open[0]!.state} with ${open[0]!.reserved} bytes`);
  for (const client of clients) {
    const version = rows.versions.find((v) => v.id === client.uploadId);
    if (client.acknowledged !== undefined && version?.number !== client.acknowledged) {
      world.fail(`version ${client.acknowledged} was acknowledged and is ${version?.number ?? "nowhere"}`);
    }
    if (client.over && version !== undefined)
      world.fail(`an upload that ended without a version has version ${version.number}`);
  }
  await checkStore(world, (v) => v.state !== "purged");
  await checkLive(world);
  pass(world, (rows) => rows.versions.map((v) => v.purgeAfter ?? 0));
  await beginSweep(world);
  await world.drain();
  await checkStore(world, (v) => v.state === "live");
  await checkLive(world);
  world.check();
}

/** The store holds exactly these versions with their manifests and the installation's mark, and nothing unfinished. */
async function checkStore(
  world: World,
  has: (version: World["oracle"]["rows"]["versions"][number]) => boolean,
): Promise<void> {
  const expected = world.oracle.rows.versions.filter(has).flatMap((v) => [v.key, manifestKey(v.key)]);
  const found = (await Array.fromAsync(world.store.list(""))).map((object) => object.key);
  const wrong = [
    ...found
      .filter((key) => key !== INSTALLATION_KEY && !expected.includes(key))
      .map((key) => `${key} is in the store without a version`),
    ...[...expected, INSTALLATION_KEY]
      .filter((key) => !found.includes(key))
      .map((key) => `${key} is missing in the store`),
    ...(await Array.fromAsync(world.store.listPending())).map(({ key }) => `${key} is unfinished`),
  ];
  if (wrong.length > 0) world.fail(wrong.join("; "));
  for (const version of world.oracle.rows.versions.filter(has)) await checkManifest(world, version);
  world.check();
}

/** The manifest says what the row says; but one that a dead server had sent may arrive after every sweep. */
async function checkManifest(world: World, version: World["oracle"]["rows"]["versions"][number]): Promise<void> {
  const key = manifestKey(version.key);
  if (version.manifestRevision !== version.revision)
    world.fail(`the manifest of ${version.number} has revision ${version.manifestRevision}, not ${version.revision}`);
  const manifest = JSON.parse(new TextDecoder().decode(await world.store.get(key, MIB)));
  const { number, version_id: id, state, revision } = manifest;
  const late = world.lateKeys.has(key);
  const isOld = state !== version.state || revision !== version.revision;
  if (number !== String(version.number) || id !== version.id || (isOld && !late))
    world.fail(`the manifest of ${version.number} says number ${number}, ${state}, revision ${revision}`);
}

/** Every live version is listed, and read back byte for byte. */
async function checkLive(world: World): Promise<void> {
  const deps = world.quietly();
  const by = world.admin;
  const never = new AbortController().signal;
  for (const name of world.specs.keys()) {
    const live = world.oracle.rows.versions.filter((v) => v.collection === name && v.state === "live");
    const { versions } = await listVersions(deps, by, { collection: name, beforeNumber: undefined, pageSize: 1000 });
    const expected = live.map((v) => v.number).sort((a, b) => b - a);
    if (versions.map((v) => Number(v.number)).join() !== expected.join())
      world.fail(`${name} lists other versions than are live`);
    for (const version of versions) {
      const read = await readVersion(
        deps,
        by,
        { collection: name, number: version.number, offset: 0n, limit: 0n },
        never,
      );
      const bytes = Buffer.concat(await Array.fromAsync(read.body));
      const { message } = world.intents.get(version.id) as Client;
      if (!bytes.equals(message)) world.fail(`version ${version.number} of ${name} is read with other bytes`);
    }
  }
}
