import type { BlobStore } from "@strongroom/server/app/ports/blob-store";
import type { Database, Transaction } from "@strongroom/server/app/ports/database";
import { SegmentAttempts } from "@strongroom/server/app/uploads/segment-attempts";
import { DomainError } from "@strongroom/server/domain/errors";
import type { FaultKind, Faults } from "./faults.ts";
import { NEVER, type Operation, ProcessDied, type Scheduler } from "./scheduler.ts";

/** The operation that calls through the ports, and what may happen to its calls. */
export interface Seam {
  readonly scheduler: Scheduler;
  readonly faults: Faults;
  readonly operation: Operation;
  /** Lets a millisecond pass, so that no two transactions have the same time and rows have one order. */
  readonly tick: () => void;
  /** Called after every transaction that was not rolled back, before anything else can happen. */
  readonly onTransaction: (operation: Operation) => Promise<void>;
  /** Runs a transaction and its judgement while no other runs. */
  readonly exclusive: <T>(run: () => Promise<T>) => Promise<T>;
  /** Keeps a call of a dead server that takes effect later. */
  readonly onLate: (effect: () => Promise<unknown>, key: string) => void;
  /** Whether such a call may exist now. */
  readonly mayBeLate: () => boolean;
}

class RolledBack extends Error {}

/** The database as one operation sees it: gates before and after every transaction, and faults there. */
export function gatedDatabase(inner: Database, seam: Seam): Database {
  const { scheduler, faults, operation } = seam;
  const transaction = async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => {
    await stop(seam, "before a transaction");
    faults.database("database before");
    const rollsBack = faults.strikes("database rolled back", 0.5);
    const twice = !rollsBack && faults.strikes("database runs it twice", 0.5);
    const attempt = async (rollBack: boolean) =>
      await inner.transaction(async (tx) => {
        const result = await work(tx);
        if (rollBack) throw new RolledBack();
        return result;
      });
    const run = async () => {
      seam.tick();
      if (rollsBack || twice) await attempt(true).catch(onlyRolledBack);
      if (rollsBack) return undefined;
      const value = await attempt(false);
      await seam.onTransaction(operation);
      return { value };
    };
    const result = await scheduler.working(async () => await seam.exclusive(run));
    if (result === undefined) {
      throw new DomainError("DATABASE_UNAVAILABLE", "injected: the connection went in the middle of a transaction");
    }
    await stop(seam, "after a transaction");
    faults.database("database answer lost");
    return result.value;
  };
  return {
    transaction,
    async read(work) {
      await stop(seam, "before a query");
      return await scheduler.working(async () => await inner.read(work));
    },
    installation: () => scheduler.working(async () => await inner.installation()),
    startRecovery: (id) => inner.startRecovery(id),
    finishRecovery: () => inner.finishRecovery(),
    startImport: () => inner.startImport(),
    finishImport: () => inner.finishImport(),
    exclusively: (name, work) => inner.exclusively(name, work),
    ping: () => inner.ping(),
    close: () => inner.close(),
  };
}

function onlyRolledBack(error: unknown): void {
  if (!(error instanceof RolledBack)) throw error;
}

/** Stops at a gate; the operation of a dead server stays there forever. */
async function stop({ scheduler, operation }: Seam, where: string, signal?: AbortSignal): Promise<void> {
  try {
    await scheduler.gate(operation, where, signal);
  } catch (error) {
    if (!(error instanceof ProcessDied)) throw error;
    await NEVER;
  }
}

/** The store as one operation sees it: gates before and after every call and at every chunk, and faults there. */
export function gatedStore(inner: BlobStore, seam: Seam): BlobStore {
  const { scheduler, faults, operation } = seam;
  const call = async <T>(
    name: string,
    perform: () => Promise<T>,
    kinds: { before?: FaultKind; after?: FaultKind; twice?: FaultKind; full?: FaultKind; late?: string },
    weight = 1,
  ): Promise<T> => {
    try {
      await scheduler.gate(operation, `before ${name}`);
    } catch (error) {
      if (!(error instanceof ProcessDied)) throw error;
      if (kinds.late !== undefined && seam.mayBeLate()) seam.onLate(perform, kinds.late);
      await NEVER;
    }
    if (kinds.full !== undefined) faults.store(kinds.full, weight);
    if (kinds.before !== undefined) faults.store(kinds.before, weight);
    const result = await scheduler.working(async () => {
      const twice = kinds.twice !== undefined && faults.strikes(kinds.twice, weight);
      const first = await perform();
      return twice ? await perform() : first;
    });
    await stop(seam, `after ${name}`);
    if (kinds.after !== undefined) faults.store(kinds.after, weight);
    return result;
  };
  return {
    capabilities: inner.capabilities,
    begin: (key, uploadId) =>
      call("begin", () => inner.begin(key, uploadId), {
        before: "store.begin before",
        after: "store.begin answer lost",
        twice: "store.begin twice",
      }),
    async writePart(blob, part, placement, body, signal) {
      await stop(seam, "before writePart", signal);
      faults.store("store.writePart before");
      const passed = gatedBody(seam, body, signal);
      await scheduler
        .working(async () => await inner.writePart(blob, part, placement, passed, signal))
        .catch(async (error) => {
          if (operation.dead) await NEVER;
          throw error;
        });
      await stop(seam, "after writePart", signal);
      faults.store("store.writePart answer lost");
    },
    complete: (blob, uploadId, parts) =>
      call(
        "complete",
        () => inner.complete(blob, uploadId, parts),
        {
          before: "store.complete before",
          after: "store.complete answer lost",
          twice: "store.complete twice",
          late: blob.key,
        },
        2,
      ),
    async putStream(input, body) {
      await stop(seam, "before putStream", input.signal);
      const passed = gatedBody(seam, body, input.signal);
      const size = await scheduler
        .working(async () => await inner.putStream(input, passed))
        .catch(async (error) => {
          if (operation.dead) await NEVER;
          throw error;
        });
      await stop(seam, "after putStream", input.signal);
      return size;
    },
    abort: (blob) =>
      call("abort", () => inner.abort(blob), { before: "store.abort before", after: "store.abort answer lost" }),
    async *listPending() {
      await stop(seam, "before listPending");
      faults.store("store.listPending before", 0.5);
      const all = await scheduler.working(async () => await Array.fromAsync(inner.listPending()));
      for (const pending of all) {
        yield pending;
        faults.store("store.listPending in the middle", 0.5);
      }
    },
    put: (key, bytes) =>
      call(
        "put",
        () => inner.put(key, bytes),
        {
          before: "store.put before",
          after: "store.put answer lost",
          full: "store.put disk full",
          late: key,
        },
        1.5,
      ),
    get: (key, maxBytes) => call("get", () => inner.get(key, maxBytes), {}),
    stat: (key) => call("stat", () => inner.stat(key), { before: "store.stat before" }, 5),
    async *read(key, offset, length, signal) {
      await stop(seam, "before read");
      const chunks = await scheduler.working(
        async () => await Array.fromAsync(inner.read(key, offset, length, signal), (chunk) => Uint8Array.from(chunk)),
      );
      for (const chunk of chunks) {
        yield chunk;
        faults.store("store.read in the middle");
      }
    },
    delete: (key) =>
      call("delete", () => inner.delete(key), { before: "store.delete before", after: "store.delete answer lost" }),
    list: (prefix) => inner.list(prefix),
    listForeign: () => inner.listForeign(),
    adopt: (key) => inner.adopt(key),
    forgetForeign: (key) => inner.forgetForeign(key),
    close: () => inner.close(),
  };
}

/**
 * Passes the body on to the store. Without an answer the store sees it break off, as when a process dies or the disk is
 * full.
 */
async function* gatedBody(
  seam: Seam,
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { scheduler, faults, operation } = seam;
  for await (const chunk of body) {
    await scheduler.waiting(async () => await scheduler.gate(operation, "at a chunk", signal));
    faults.store("store.writePart disk full", 0.5);
    yield chunk;
    faults.store("store.writePart in the middle", 0.5);
  }
}

/**
 * The attempts of one server. Whoever waits for an older attempt waits for the scenario, which stands at a gate of that
 * one.
 */
export class CountedAttempts extends SegmentAttempts {
  readonly #faults: Faults;
  readonly #running = new Set<string>();

  constructor(faults: Faults) {
    super();
    this.#faults = faults;
  }

  override async run<T>(key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#running.has(key)) this.#faults.count("segment superseded on one server");
    return await super.run(key, signal, async (inner) => {
      this.#running.add(key);
      try {
        return await work(inner);
      } finally {
        this.#running.delete(key);
      }
    });
  }
}
