import { InstallationMismatchError } from "../installation.ts";
import { storeFailure } from "../uploads/store-failure.ts";
import { type CompareAct, type CompareDeps, compareStore } from "./compare-store.ts";

/** How soon a refused commit may be repeated, in milliseconds. */
const RETRY_MS = 2000;

/**
 * The comparison of store and database at the start: before a number is given out, versions that only the store knows
 * are added, since the database may have been rolled back. Where it fails, the server begins all the same, but no
 * upload gets a number before it has succeeded.
 */
export class StartComparison {
  readonly #deps: CompareDeps;
  #running: Promise<boolean> | undefined;
  #succeeded = false;

  constructor(deps: CompareDeps) {
    this.#deps = deps;
  }

  /** Whether it has succeeded. */
  get ready(): boolean {
    return this.#succeeded;
  }

  /** Compares, unless that has succeeded or is under way. @returns whether it has succeeded. */
  async run(): Promise<boolean> {
    this.#running ??= this.#compare();
    this.#succeeded = await this.#running;
    return this.#succeeded;
  }

  /** @throws DomainError STORE_UNAVAILABLE when store and database could not be compared since the start */
  async require(): Promise<void> {
    if (await this.run()) return;
    const what =
      "the object store could not be compared with the database since the server started, and no version gets a " +
      "number before; repeat the commit in a moment";
    throw storeFailure(what, undefined, RETRY_MS);
  }

  async #compare(): Promise<boolean> {
    const { log } = this.#deps;
    const act: CompareAct = async (_kind, what, fields, work) => {
      if ((await work()) !== false) log.warn(fields, `compared at the start: ${what}`);
    };
    try {
      await compareStore(this.#deps, act, { contents: false });
      return true;
    } catch (error) {
      log.error(
        { err: error },
        "the store could not be compared with the database; the next commit and the sweeper try it again",
      );
      // What another installation's store holds says nothing about the numbers of this database.
      if (error instanceof InstallationMismatchError) return true;
      this.#running = undefined;
      return false;
    }
  }
}
