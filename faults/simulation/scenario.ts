import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { DirectoryBlobStore } from "@strongroom/server/adapters/filesystem/directory-blob-store";
import { MemoryBlobStore } from "@strongroom/server/adapters/memory/memory-blob-store";
import type { BlobStore } from "@strongroom/server/app/ports/blob-store";
import type { CollectionSpec } from "@strongroom/server/domain/configuration";
import { INSTALLATION_KEY } from "@strongroom/server/domain/object-keys";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { Random } from "@strongroom/testkit/random";
import { collection, type Harness, MIB, SETTINGS } from "../../server/test/support/harness.ts";
import { temporaryRoot } from "../place.ts";
import { Client, type MessageKind } from "./client.ts";
import { beginDeletion, beginHold, beginReading, beginSweep, changeLimits, limits, moveClock } from "./events.ts";
import { Faults } from "./faults.ts";
import { checkEnd, finish, settleDown } from "./settle-and-check.ts";
import { type Queryable, World } from "./world.ts";

/** How a scenario ended. */
export interface ScenarioResult {
  readonly seed: string;
  readonly store: "memory" | "directory";
  readonly faults: Faults;
  readonly trace: readonly string[];
  /** Versions acknowledged. */
  readonly versions: number;
  /** What was wrong. */
  readonly failure: string | undefined;
}

/** Plays one scenario: everything in it follows from its seed. */
export async function playScenario(harness: Harness, seed: string): Promise<ScenarioResult> {
  const random = new Random(seed);
  const faults = new Faults(random, random.pick([0, 0.02, 0.04, 0.08]));
  const kind = random.chance(0.2) ? "directory" : "memory";
  const root = kind === "directory" ? await mkdtemp(join(temporaryRoot(), "strongroom-faults-")) : undefined;
  let store: BlobStore = root === undefined ? new MemoryBlobStore() : await DirectoryBlobStore.open(root);
  const reopen = async (): Promise<BlobStore> => {
    await store.close();
    store = await DirectoryBlobStore.open(root!);
    return store;
  };
  // A name of its own, since one database serves many scenarios; what it left must be ended, or this one's sweeps would
  // meet it.
  const tenant = random.chance(0.4) ? `t-${seed}` : "";
  const specs = policies(random, seed, tenant);
  const database = harness.deps.database as Queryable;
  const world = new World({
    database,
    store,
    clock: harness.clock,
    settings: SETTINGS,
    random,
    faults,
    admin: harness.admin,
    replicas: random.pick([1, 2, 2]),
    specs,
    organization: { name: tenant, maxTotalSize: tenant === "" ? undefined : BigInt(random.int(3, 12) * MIB) },
    reopen: root === undefined ? undefined : reopen,
  });
  // Every scenario has a new store beside the one database.
  const marker = { installation_id: (await database.installation()).id };
  await store.put(INSTALLATION_KEY, new TextEncoder().encode(JSON.stringify(marker)));
  const clients: Client[] = [];
  let failure: string | undefined;
  try {
    const { rate } = faults;
    faults.rate = 0;
    for (let i = random.int(0, 2); i > 0; i--) await finish(world, newClient(world, clients, seed));
    faults.rate = rate;
    await disturb(world, clients, seed);
    await settleDown(world, clients);
    await checkEnd(world, clients);
  } catch (error) {
    failure = error instanceof Error && error.name === "Violation" ? error.message : String((error as Error).stack);
  } finally {
    // A failed scenario leaves rows behind that no later one can end: its store goes.
    if (failure === undefined) await store.close();
    if (root !== undefined) await rm(root, { recursive: true, force: true });
  }
  const versions = clients.filter((c) => c.acknowledged !== undefined).length;
  return { seed, store: kind, faults, trace: world.trace, versions, failure };
}

function policies(random: Random, seed: string, organization: string): Map<string, CollectionSpec> {
  const specs = Array.from({ length: random.pick([1, 1, 2]) }, (_, i) =>
    collection(`c-${seed}-${i}`, { organization, ...limits(random) }),
  );
  return new Map(specs.map((spec) => [spec.name, spec]));
}

function newClient(world: World, clients: Client[], seed: string): Client {
  const { random } = world;
  const kind = random.weighted<MessageKind>([
    [12, "whole"],
    [1, "plaintext"],
    [1, "truncated message"],
  ]);
  const size = random.weighted([
    [4, random.int(1000, 200_000)],
    [3, random.int(200_000, 2 * MIB)],
    [1, MIB],
    [1, MIB + 1],
    [1, random.int(2 * MIB, 3 * MIB)],
  ]);
  const whole = kind === "plaintext" ? new Uint8Array(size).fill(97) : openpgpMessage(size);
  const message = kind === "truncated message" ? whole.subarray(0, -1) : whole;
  const client = new Client(world, `${seed}-${clients.length}`, random.pick([...world.specs.keys()]), message, kind);
  clients.push(client);
  return client;
}

/** The main part: clients and everything around them, in an order of the seed. */
async function disturb(world: World, clients: Client[], seed: string): Promise<void> {
  const { random } = world;
  const most = clients.length + random.int(2, 6);
  const steps = random.int(60, 180);
  for (let i = 0; i < steps; i++) {
    const active = clients.filter((c) => !c.over && (c.acknowledged === undefined || random.chance(0.05)));
    // Between the steps of a commit a death is the most interesting.
    const commits = world.scheduler.parked.some(({ where }) => /(before|after) (complete|put)/.test(where));
    const event = random.weighted([
      [20, "step"],
      [world.busy < 6 && (active.length > 0 || clients.length < most) ? 6 : 0, "client"],
      [0.25, "clock"],
      [0.4, "sweep"],
      [commits ? 0.8 : 0.06, "death"],
      [0.2, "configuration"],
      [0.5, "delete"],
      [0.5, "read"],
      [0.4, "hold"],
    ] as const);
    if (event === "step") await world.step();
    else if (event === "client") {
      const fresh = clients.length < most && (active.length === 0 || random.chance(0.25));
      await (fresh ? newClient(world, clients, seed) : random.pick(active)).act();
    } else if (event === "clock") await moveClock(world);
    else if (event === "sweep") await beginSweep(world);
    else if (event === "death") {
      await world.kill(random.int(0, world.replicas - 1));
    } else if (event === "configuration") changeLimits(world);
    else if (event === "delete") await beginDeletion(world);
    else if (event === "hold") await beginHold(world);
    else await beginReading(world, clients);
  }
  // What was removed goes while the store may still fail.
  await world.drain();
  await world.lateEffects();
  world.clock.now = new Date(world.clock.now.getTime() + 25 * 3_600_000);
  for (let i = 0; i < 2; i++) {
    await beginSweep(world);
    await world.drain();
  }
}
