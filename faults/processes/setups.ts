import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DirectoryBlobStore } from "@strongroom/server/adapters/filesystem/directory-blob-store";
import { openPglite } from "@strongroom/server/adapters/pglite/pglite";
import { openPostgres } from "@strongroom/server/adapters/postgres/postgres";
import { openS3Store } from "@strongroom/server/adapters/s3/open-s3-store";
import type { S3Location } from "@strongroom/server/adapters/s3/s3-location";
import { parseStorage } from "@strongroom/server/adapters/stores";
import type { BlobStore } from "@strongroom/server/app/ports/blob-store";
import { parsePostgresUrl } from "@strongroom/server/domain/postgres-url";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { findPeer, requirePeer } from "@strongroom/testkit/peers/programs";
import { type S3Peer, type S3PeerName, startS3 } from "@strongroom/testkit/peers/s3";
import { bringBackParts, CompletionKiller } from "@strongroom/testkit/peers/versitygw";
import { type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import { startS3FaultProxy } from "@strongroom/testkit/s3-fault-proxy";
import type { Queryable } from "../simulation/world.ts";

/** Moments of a commit, by what has happened in the store. The version is published after the last. */
export const COMMIT_STEPS = ["object asked for", "object there", "manifest asked for", "manifest there"] as const;

/** The moment at which a store that makes an object of its parts is killed with the server. */
export const MAKING = "object being made, store killed too";

/** One of {@link COMMIT_STEPS}, or {@link MAKING}. */
export type CommitStep = (typeof COMMIT_STEPS)[number] | typeof MAKING;

/** A database and a store below a server, in a scenario with real processes. */
export interface Setup {
  readonly name: string;
  /** Servers that run on it at once. */
  readonly replicas: number;
  /** Bytes of a segment. */
  readonly segmentSize: number;
  /** Starts a server on it. */
  start(): Promise<ServerProcess>;
  /** Opens database and store while no server runs, with another clock. */
  open(clock: () => Date): Promise<{ database: Queryable; store: BlobStore }>;
  /** What can be done to it in the middle of an upload beside what is done to every server, by name. */
  readonly faults: Readonly<Record<string, () => Promise<void>>>;
  /** Moments of a commit at which a server can be killed. */
  readonly commitSteps: readonly CommitStep[];
  /**
   * Does this once, when the next commit is there; what a server asked of S3 then is never answered. Returns what takes
   * it back.
   */
  atCommit(step: CommitStep, strike: () => void): () => void;
  /** Ends what it started. */
  close(): Promise<void>;
}

/** Makes a set-up; `data` is a directory that has the configuration in `config`. */
export interface SetupFactory {
  readonly name: string;
  /** Programs that must be installed. */
  readonly peers: readonly string[];
  make(data: string, options: readonly string[]): Promise<Setup>;
}

const MIB = 1024 * 1024;

/** The embedded default: PGlite and a directory. */
const embedded: SetupFactory = {
  name: "PGlite and directory",
  peers: [],
  make: async (data, options) => ({
    name: "PGlite and directory",
    replicas: 1,
    segmentSize: 4 * MIB,
    start: () => startServerProcess(["--data", data, "--segment-size", "4M", ...options]),
    async open(clock) {
      const store = await DirectoryBlobStore.open(join(data, "storage"));
      try {
        return { database: await openPglite({ directory: join(data, "database"), clock }), store };
      } catch (error) {
        await store.close();
        throw error;
      }
    },
    faults: {},
    commitSteps: ["object there", "manifest there"],
    atCommit: (step, strike) => watchObjects(join(data, "storage", "objects", "collections", "faults"), step, strike),
    close: async () => {},
  }),
};

/** Looks into a folder of the directory store until there is another object, or another manifest. */
function watchObjects(folder: string, step: CommitStep, strike: () => void): () => void {
  const matching = () =>
    readdirSync(folder).filter((name) => name.endsWith(".manifest.json") === (step === "manifest there"));
  mkdirSync(folder, { recursive: true });
  const before = new Set(matching());
  const timer = setInterval(() => {
    if (matching().every((name) => before.has(name))) return;
    clearInterval(timer);
    strike();
  }, 1);
  return () => clearInterval(timer);
}

/** One or more servers on one PostgreSQL and one bucket. */
function postgresAndS3(peerName: S3PeerName, replicas: number): SetupFactory {
  const name = `PostgreSQL and ${peerName}${replicas > 1 ? `, ${replicas} replicas` : ""}`;
  return { name, peers: ["postgres", "initdb", "psql", peerName], make };

  async function make(data: string, options: readonly string[]): Promise<Setup> {
    const closing: (() => unknown)[] = [];
    const close = async () => {
      for (const end of closing.splice(0).reverse()) await end();
    };
    try {
      const postgres = await startPostgres();
      closing.push(() => postgres.remove());
      const s3 = await startS3(peerName);
      closing.push(() => s3.remove());
      const killer = peerName === "versitygw" ? await CompletionKiller.open(s3) : undefined;
      closing.push(() => killer?.close());
      // Servers and this process find the credentials where the SDK looks for them.
      Object.assign(process.env, s3.env);
      const proxy = await startS3FaultProxy({ teardown: (end) => void closing.push(end) }, s3.endpoint);
      const through = s3
        .storageUrl("faults")
        .replace(encodeURIComponent(s3.endpoint), encodeURIComponent(proxy.endpoint));
      const where = ["--data", data, "--database", postgres.url, "--storage", through, "--segment-size", "5M"];
      return {
        name,
        replicas,
        segmentSize: 5 * MIB,
        start: () => startServerProcess([...where, ...options]),
        async open(clock) {
          const store = await openS3Store(parseStorage(s3.storageUrl("faults")) as S3Location, () => {});
          try {
            const location = parsePostgresUrl(postgres.url);
            return { database: await openPostgres({ location, connections: 4, waitMs: 30_000, clock }), store };
          } catch (error) {
            await store.close();
            throw error;
          }
        },
        faults: {
          "database connections killed": async () => {
            const all = "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend'";
            execFileSync(requirePeer("psql"), ["-qAt", "-c", `${all} and pid <> pg_backend_pid()`, postgres.url]);
          },
          "database killed": async () => {
            await postgres.stop("kill");
            await startAgain(() => postgres.start());
          },
          "store stopped": async () => {
            await s3.stop("term");
            await sleep(500);
            await s3.start();
          },
          "store killed": async () => {
            await s3.stop("kill");
            await s3.start();
          },
          "store answer lost": async () => {
            proxy.fail("part", "lose-answer");
            proxy.fail("complete", "lose-answer");
          },
        },
        commitSteps: killer === undefined ? COMMIT_STEPS : [...COMMIT_STEPS, MAKING],
        atCommit: (step, strike) => {
          if (step === MAKING) return killedWhileMaking(s3, killer!, strike);
          return proxy.at(
            step.startsWith("object") ? "complete" : "put",
            step.endsWith("asked for") ? "arrived" : "done",
            strike,
          );
        },
        close,
      };
    } catch (error) {
      await close();
      throw error;
    }
  }
}

/** Kills the store while it makes the object, brings the parts back as the documents say, and starts it again. */
function killedWhileMaking(s3: S3Peer, killer: CompletionKiller, strike: () => void): () => void {
  const mend = async () => {
    if (!(await killer.arm())) return;
    await s3.stop("kill");
    await bringBackParts(s3);
    await s3.start();
    strike();
  };
  // Where it does not start again, the backup fails and says so.
  mend().catch((error: unknown) => console.error(error));
  return () => killer.disarm();
}

/** A database that was killed cannot start while its orphans still hold the shared memory. */
async function startAgain(start: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await start();
    } catch (error) {
      if (tries === 20) throw error;
      await sleep(250);
    }
  }
}

/** Faults that take the database or the store away for a while. */
export const OUTAGES = ["database killed", "store stopped", "store killed"] as const;

/** Programs of a set-up that are not installed here. */
export function missingPeers({ peers }: SetupFactory): string[] {
  return peers.filter((peer) => findPeer(peer) === undefined);
}

/** Every set-up; scenarios are dealt out to them in turn. */
export const SETUPS: readonly SetupFactory[] = [
  embedded,
  postgresAndS3("versitygw", 1),
  postgresAndS3("minio", 2),
  postgresAndS3("minio", 1),
  postgresAndS3("versitygw", 2),
];
