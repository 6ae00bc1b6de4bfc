import { Worker } from "node:worker_threads";
import type { Judgement } from "./directory.ts";

/** What the thread is started with. */
export interface ThreadData {
  readonly dir: string;
  readonly known: { readonly digest: string; readonly directories: readonly string[] };
  readonly pollMs: number;
}

/** Asks for a look now. */
export interface ThreadQuestion {
  readonly id: number;
  readonly force: boolean;
}

/** What a look found; with the id of the question, if one was asked. */
export interface ThreadAnswer {
  readonly id?: number;
  readonly judgement: Judgement;
}

/** After how long a thread that ended is started again, in milliseconds. */
const RESTART_MS = 10_000;
/** A configuration that takes more, in MiB, ends the thread and not the server. */
const MAX_HEAP_MIB = 2048;

/**
 * Looks at a configuration directory in a thread of its own, which reads and judges while this one serves. Under load
 * each of the many small steps of a look waited here for its turn, so that a change of rights took a minute to be in
 * force; from there it needs one turn.
 */
export class ConfigThread {
  readonly #onJudgement: (judgement: Judgement) => void;
  readonly #asked = new Map<number, (judgement: Judgement) => void>();
  #lastId = 0;
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @param onJudgement is called with what looks found that nobody asked for. */
  constructor(data: ThreadData, onJudgement: (judgement: Judgement) => void) {
    this.#onJudgement = onJudgement;
    this.#start(data);
  }

  /** Looks now. */
  async look(force: boolean): Promise<Judgement> {
    return await new Promise((resolve) => {
      const worker = this.#worker;
      if (worker === undefined) return resolve(ended("it has ended and is started again soon"));
      const id = ++this.#lastId;
      this.#asked.set(id, resolve);
      worker.postMessage({ id, force } satisfies ThreadQuestion);
    });
  }

  /** Ends the thread. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#worker?.terminate();
  }

  #start(data: ThreadData): void {
    const resourceLimits = { maxOldGenerationSizeMb: MAX_HEAP_MIB };
    const worker = new Worker(new URL("./thread.ts", import.meta.url), { workerData: data, resourceLimits });
    worker.unref();
    this.#worker = worker;
    let why = "it ended by itself";
    worker.on("message", ({ id, judgement }: ThreadAnswer) => {
      const asked = id === undefined ? undefined : this.#asked.get(id);
      if (id !== undefined) this.#asked.delete(id);
      (asked ?? this.#onJudgement)(judgement);
    });
    worker.on("error", (error: Error) => {
      why = error.message;
    });
    worker.on("exit", () => {
      this.#worker = undefined;
      const failed = ended(why);
      for (const asked of this.#asked.values()) asked(failed);
      this.#asked.clear();
      if (this.#isClosed) return;
      this.#onJudgement(failed);
      // What was judged is not known any more, so the next one judges what it finds.
      this.#timer = setTimeout(() => this.#start({ ...data, known: { ...data.known, digest: "" } }), RESTART_MS);
      this.#timer.unref();
    });
  }
}

function ended(why: string): Judgement {
  return { kind: "failed", error: new Error(`the thread that reads the configuration: ${why}`) };
}
