import type { EventEmitter } from "node:events";
import { formatDuration } from "@strongroom/protocol/sizes";
import { CommandError, InterruptedError } from "./errors.ts";
import { EXIT } from "./exit-codes.ts";

/** `--timeout` ran out. */
export class TimeoutError extends CommandError {
  override name = "TimeoutError";

  constructor(ms: number) {
    super(`not finished within --timeout (${formatDuration(ms)})`, EXIT.network);
  }
}

/** Where signals come from, and how the process ends; so that a test can stand in for them. */
export interface Interruptions {
  /** Sends SIGINT, SIGTERM and SIGHUP as events. */
  readonly signals: EventEmitter;
  /** Ends the process at once. */
  readonly exit: (code: number) => void;
}

/** `setTimeout` takes no more milliseconds than this (24.8 days). */
const MAX_TIMER_MS = 2 ** 31 - 1;

const SIGNALS = [
  ["SIGINT", EXIT.interrupted],
  ["SIGTERM", EXIT.terminated],
  ["SIGHUP", EXIT.hangup],
] as const;

/**
 * Runs work that must be given up in order, not just dropped. The first SIGINT, SIGTERM or SIGHUP, or the end of the
 * time limit, aborts the signal that the work was given; the work then cleans up and fails. A second signal ends the
 * process at once.
 * @throws {InterruptedError | TimeoutError} in place of whatever the aborted work failed with.
 */
export async function interruptible<T>(
  context: Interruptions,
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
