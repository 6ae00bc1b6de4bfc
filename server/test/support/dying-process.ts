import type { BlobStore } from "../../src/app/ports/blob-store.ts";
import type { Database } from "../../src/app/ports/database.ts";

/** What every call of a dead process ends with. */
export class KilledError extends Error {
  override name = "KilledError";
}

/**
 * Where a process dies: at its `step`-th call of the database or the store (from 1), before the call's effect or after
 * it.
 */
export interface Death {
  readonly step: number;
  readonly when: "before" | "after";
}

/**
 * Database and store as a process sees them that is killed at a chosen point: from then on none of its calls has an
 * effect. Steps are the transactions and the store's calls; all that a process can leave behind lies between two of
 * them.
 */
export class DyingProcess {
  readonly database: Database;
  readonly store: BlobStore;
  readonly #death: Death;
  #steps = 0;
  #dead = false;

  constructor(on: { readonly database: Database; readonly store: BlobStore }, death: Death) {
    this.#death = death;
    this.database = this.#wrap(on.database);
    this.store = this.#wrap(on.store);
  }

  /** Whether it died; false when all it did took fewer steps. */
  get died(): boolean {
    return this.#dead;
  }

  #wrap<T extends object>(target: T): T {
    return new Proxy(target, {
      get: (_, name) => {
        const value = Reflect.get(target, name) as unknown;
        if (typeof value !== "function") return value;
        if (["list", "listPending", "read"].includes(String(name)) && "capabilities" in target) {
          return (...given: unknown[]) => this.#stream(() => value.apply(target, given) as AsyncIterable<unknown>);
        }
        return async (...given: unknown[]) =>
          await this.#step(async () => (await value.apply(target, given)) as unknown);
      },
    });
  }

  async #step<R>(call: () => Promise<R>): Promise<R> {
    this.#enter();
    const result = await call();
    this.#leave();
    return result;
  }

  async *#stream(call: () => AsyncIterable<unknown>): AsyncGenerator<unknown> {
    this.#enter();
    for await (const item of call()) {
      if (this.#dead) throw new KilledError();
      yield item;
    }
    this.#leave();
  }

  #enter(): void {
    this.#steps++;
    if (this.#steps === this.#death.step && this.#death.when === "before") this.#dead = true;
    if (this.#dead) throw new KilledError();
  }

  #leave(): void {
    if (this.#steps >= this.#death.step && this.#death.when === "after") this.#dead = true;
    if (this.#dead) throw new KilledError();
  }
}
