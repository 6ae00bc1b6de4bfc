import { EXIT } from "@strongroom/command-line/exit-codes";
import type { Context } from "../context.ts";
import { InterruptedError, TimeoutError } from "../errors.ts";

/** `setTimeout` takes no more milliseconds than this (24.8 days). */
const MAX_TIMER_MS = 2 ** 31 - 1;

const SIGNALS = [
  ["SIGINT", EXIT.interrupted],
  ["SIGTERM", EXIT.terminated],
  ["SIGHUP", EXIT.hangup],
] as const;

/**
 * Runs work that must be given up in order, not just dropped. The first SIGINT, SIGTERM or SIGHUP, or the end of the time limit, aborts the
 * signal that the work was given; the work then cleans up and fails. A second signal ends the process at once.
 * @throws {InterruptedError | TimeoutError} in place of whatever the aborted work failed with.
 */
export async function interruptible<T>(
  context: Pick<Context, "signals" | "exit">,
  options: { timeoutMs?: number | undefined; onInterrupt?: () => void },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const listeners = SIGNALS.map(([name, exitCode]) => {
    const listener = () => {
      if (controller.signal.aborted) context.exit(exitCode);
      options.onInterrupt?.();
      controller.abort(new InterruptedError(`ended by ${name}`, exitCode));
    };
    context.signals.on(name, listener);
    return [name, listener] as const;
  });
  const { timeoutMs } = options;
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => controller.abort(new TimeoutError(timeoutMs)), Math.min(timeoutMs, MAX_TIMER_MS));
  try {
    return await work(controller.signal);
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    clearTimeout(timer);
    for (const [name, listener] of listeners) context.signals.off(name, listener);
  }
}

/** Waits for a promise, but no longer than until the signal is aborted; rejects with its reason then. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise;
  // Nobody waits for it any more once the signal is aborted.
  promise.catch(() => {});
  signal.throwIfAborted();
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}
