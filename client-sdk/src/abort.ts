/**
 * Small helpers around abort signals. They add one listener and take it away again, so that a signal may outlive a
 * million chunks.
 */
import { Code, ConnectError } from "@connectrpc/connect";

/**
 * Waits for the promise, or rejects with the signal's reason as soon as it is aborted; the promise's own end is then
 * ignored.
 */
export function orAborted<T>(promise: PromiseLike<T> | T, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    Promise.resolve(promise)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Waits; rejects with the signal's reason when it is aborted before. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await orAborted(
      new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms);
      }),
      signal,
    );
  } finally {
    clearTimeout(timer);
  }
}

/** A controller that is also aborted by other signals, until it is unlinked. */
export class LinkedController {
  readonly #controller = new AbortController();
  readonly #links: readonly AbortSignal[];
  readonly #onAbort = (event: Event): void => this.abort((event.target as AbortSignal).reason);

  /** @param signals - those that abort this one; undefined ones are left out */
  constructor(...signals: (AbortSignal | undefined)[]) {
    this.#links = signals.filter((s) => s !== undefined);
    for (const signal of this.#links) {
      if (signal.aborted) this.abort(signal.reason);
      else signal.addEventListener("abort", this.#onAbort, { once: true });
    }
  }

  /** Aborted by `abort` or by any of the linked signals, with the reason of the first. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Aborts; later reasons are ignored. */
  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** Forgets the other signals. */
  unlink(): void {
    for (const signal of this.#links) signal.removeEventListener("abort", this.#onAbort);
  }
}

/** Ends an attempt when what is expected does not happen in time. */
export class Watchdog {
  readonly #attempt: LinkedController;
  #timer: NodeJS.Timeout | undefined;

  /** @param attempt - what to abort */
  constructor(attempt: LinkedController) {
    this.#attempt = attempt;
  }

  /** Something happened; the next thing is expected within `ms`. */
  expect(ms: number, otherwise: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#attempt.abort(new ConnectError(`${otherwise} for ${ms / 1000} s`, Code.DeadlineExceeded));
    }, ms);
  }

  /** Nothing is expected any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
