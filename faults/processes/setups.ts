import { join } from "node:path";
import { type ServerProcess, startServerProcess } from "../../demo/processes.ts";
import { DirectoryBlobStore } from "../../server/src/adapters/filesystem/directory-blob-store.ts";
import { openPglite } from "../../server/src/adapters/pglite/pglite.ts";
import type { BlobStore } from "../../server/src/app/ports.ts";
import type { Queryable } from "../simulation/world.ts";

/** A database and a store below a server, in a scenario with real processes. */
export interface Setup {
  readonly name: string;
  /** Starts a server on it. */
  start(): Promise<ServerProcess>;
  /** Opens database and store while no server runs, with another clock. */
  open(clock: () => Date): Promise<{ database: Queryable; store: BlobStore }>;
  /** What can be done to it in the middle of an upload beside what is done to every server, by name. */
  readonly faults: Readonly<Record<string, () => Promise<void>>>;
  /** Ends what it started. */
  close(): Promise<void>;
}

/** Makes a set-up; `data` is a directory that has the configuration in `config`. Undefined, and said loudly, where its programs are missing. */
export type SetupFactory = (data: string, options: readonly string[]) => Promise<Setup | undefined>;

/** The embedded default: PGlite and a directory. */
export const embedded: SetupFactory = async (data, options) => ({
  name: "PGlite and directory",
  start: () => startServerProcess(["--data", data, ...options]),
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
  close: async () => {},
});

/** Every set-up; scenarios are dealt out to them in turn. */
export const SETUPS: readonly SetupFactory[] = [embedded];
