import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import type { Judgement } from "./directory.ts";

/** What the thread is started with. */
export interface ThreadData {
  readonly dir: string;
  readonly known: { readonly digest: string; readonly directories: readonly string[] };
  readonly pollMs: number;
  /** Over which questions come and answers go. */
  readonly port: MessagePort;
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
 * force. What it found is handed over as soon as somebody asks for it ({@link ConfigThread.take}), else with the next
 * turn: under a flood turns are half a second apart.
 */
export class ConfigThread {
  readonly #onJudgement: (judgement: Judgement) => void;
  readonly #asked = new Map<number, (judgement: Judgement) => void>();
  #lastId = 0;
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @param onJudgement is called with what looks found that nobody asked for. */
  constructor(data: Omit<ThreadData, "port">, onJudgement: (judgement: Judgement) => void) {
    this.#onJudgement = onJudgement;
    this.#start(data);
  }

  /** Looks now. */
  async look(force: boolean): Promise<Judgement> {
    return await new Promise((resolve) => {
      const port = this.#port;
      if (port === undefined) return resolve(ended("it has ended and is started again soon"));
      const id = ++this.#lastId;
      this.#asked.set(id, resolve);
      port.postMessage({ id, force } satisfies ThreadQuestion);
    });
  }

  /** Takes what the thread has found by now, without waiting for a turn of the event loop. */
  take(): void {
    while (this.#port !== undefined) {
      const received = receiveMessageOnPort(this.#port);
      if (received === undefined) return;
      this.#answered(received.message);
    }
  }

  /** Ends the thread. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#worker?.terminate();
  }

  #answered({ id, judgement }: ThreadAnswer): void {
    const asked = id === undefined ? undefined : this.#asked.get(id);
    if (id !== undefined) this.#asked.delete(id);
    (asked ?? this.#onJudgement)(judgement);
  }

  #start(data: Omit<ThreadData, "port">): void {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(new URL("./thread.ts", import.meta.url), {
      workerData: { ...data, port: port2 } satisfies ThreadData,
      transferList: [port2],
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
    });
    worker.unref();
    this.#worker = worker;
    this.#port = port1;
    port1.on("message", (answer: ThreadAnswer) => this.#answered(answer));
    port1.unref();
    let why = "it ended by itself";
    worker.on("error", (error: Error) => {
      why = error.message;
    });
    worker.on("exit", () => {
      this.take();
      port1.close();
      this.#worker = undefined;
      this.#port = undefined;
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
