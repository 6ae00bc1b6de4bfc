/** The kinds of database that use cases are tested on, and a test that runs on each of them. */

import { type PostgresPeer, startPostgres } from "@strongroom/testkit/peers/postgres";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import type { ExecutionContext, ImplementationFn, TestFn } from "ava";
import type { SqlDatabase } from "../../src/adapters/postgres/database.ts";
import { openPostgres, type PostgresOptions } from "../../src/adapters/postgres/postgres.ts";
import { parsePostgresUrl } from "../../src/domain/postgres-url.ts";
import { openMemoryDatabase } from "./memory-database.ts";

/** Programs that tests on a PostgreSQL server need. */
export const POSTGRES_PROGRAMS = ["postgres", "initdb", "createdb", "pg_isready"] as const;

/** Kinds of database. */
export const DATABASES = ["PGlite", "PostgreSQL"] as const;

/** A kind of database. */
export type DatabaseKind = (typeof DATABASES)[number];

/** A PostgreSQL server for this test process, whose databases are clones of one that is migrated. */
export class Cluster {
  readonly peer: PostgresPeer;
  #count = 0;
  #cloning: Promise<unknown> = Promise.resolve();

  private constructor(peer: PostgresPeer) {
    this.peer = peer;
  }

  static async start(): Promise<Cluster> {
    const peer = await startPostgres({ max_connections: "300", shared_buffers: "32MB" });
    try {
      const url = await peer.createDatabase("template_strongroom");
      await (await openServer(url)).close();
      return new Cluster(peer);
    } catch (error) {
      await peer.remove();
      throw error;
    }
  }

  /** URL of a new database with every migration. */
  async createDatabase(): Promise<string> {
    const name = `test_${++this.#count}`;
    // One at a time: nobody may be connected to what is cloned.
    const cloned = this.#cloning.then(async () => await this.peer.createDatabase(name, "template_strongroom"));
    this.#cloning = cloned.catch(() => {});
    return await cloned;
  }
}

/** Opens a database on a server, as a replica of its own. */
export async function openServer(
  url: string,
  clock?: () => Date,
  connections = 4,
  more: Pick<PostgresOptions, "connectionWaitMs" | "lockIdleMs"> = {},
): Promise<SqlDatabase> {
  return await openPostgres({ location: parsePostgresUrl(url), connections, waitMs: 10_000, clock, ...more });
}

let cluster: Promise<Cluster> | undefined;

/** The server of this test process, started when it is first asked for. */
export async function sharedCluster(): Promise<Cluster> {
  cluster ??= Cluster.start();
  return await cluster;
}

/** Ends the server of this test process. For `test.after.always`. */
export async function removeSharedCluster(): Promise<void> {
  await (await cluster?.catch(() => undefined))?.peer.remove();
}

/** Opens a new, empty database of a kind, with a clock of the test. */
export async function openDatabase(kind: DatabaseKind, clock: () => Date): Promise<SqlDatabase> {
  if (kind === "PGlite") return await openMemoryDatabase(clock);
  return await openServer(await (await sharedCluster()).createDatabase(), clock);
}

/** Declares a test that runs on every kind of database, one after another. */
export type DatabaseTest<C> = (title: string, implementation: ImplementationFn<[], C>) => void;

/**
 * Makes a function that declares each test once for every kind of database. Where PostgreSQL is not installed, its half
 * says so loudly.
 * @param open makes what the tests of one kind share.
 * @param use hands it to a test before it runs.
 * @param check runs after every test.
 */
export function onEachDatabase<S, C = unknown>(
  test: TestFn<C>,
  shared: {
    open: (kind: DatabaseKind) => Promise<S>;
    use: (t: ExecutionContext<C>, of: S) => Promise<void> | void;
    check?: (t: ExecutionContext<C>, of: S) => Promise<void>;
    close: (of: S) => Promise<void>;
  },
): DatabaseTest<C> {
  const opened = new Map<DatabaseKind, S>();
  const installed = POSTGRES_PROGRAMS.every((name) => findPeer(name) !== undefined);
  test.before(async () => {
    for (const kind of DATABASES) if (kind === "PGlite" || installed) opened.set(kind, await shared.open(kind));
  });
  test.after.always(async () => {
    for (const of of opened.values()) await shared.close(of);
    await removeSharedCluster();
  });
  return (title, implementation) => {
    for (const kind of DATABASES) {
      test.serial(`${kind}: ${title}`, async (t) => {
        if (kind === "PostgreSQL" && !hasPeers(t, ...POSTGRES_PROGRAMS)) return;
        const of = opened.get(kind)!;
        await shared.use(t, of);
        await implementation(t);
        await shared.check?.(t, of);
      });
    }
  };
}
