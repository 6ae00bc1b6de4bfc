import type { RetryEvent, UploadWait } from "@strongroom/client-sdk";
import { printable } from "@strongroom/command-line/printable";
import { quantity } from "@strongroom/protocol/quantity";
import { formatSize } from "@strongroom/protocol/sizes";
import { formatDuration, formatTime } from "./format.ts";
import type { Output } from "./output.ts";

/** A terminal is redrawn this often, in milliseconds. */
const REDRAW_MS = 250;
/** Elsewhere (cron, a log) a line comes this often, in milliseconds. */
export const LINE_EVERY_MS = 30_000;
/**
 * Reports of lost connections closer together than this, in milliseconds, are one: several segments are under way at
 * once.
 */
const SAME_TROUBLE_MS = 10_000;
/** A transfer that goes on within this time after a report, in milliseconds, needs no report of its own. */
const TOLD_MS = 60_000;

/**
 * Tells how a transfer goes on: one line that is redrawn on a terminal, else a line every 30 seconds; nothing with
 * `--quiet`. Everything else that is written to standard error meanwhile goes through here, so that it does not land in
 * the middle of the line.
 */
export class Progress {
  readonly #output: Output;
  readonly #render: () => string;
  readonly #now: () => number;
  readonly #onTerminal: boolean;
  #timer: NodeJS.Timeout | undefined;
  #drawn = false;
  #troubleAt = Number.NEGATIVE_INFINITY;
  #resumes = 0;

  constructor(output: Output, now: () => number, render: () => string) {
    this.#output = output;
    this.#now = now;
    this.#render = render;
    this.#onTerminal = output.stderr.isTTY === true;
  }

  /** Begins to report. `everyMs` is for tests. */
  start(everyMs: number = this.#onTerminal ? REDRAW_MS : LINE_EVERY_MS): void {
    if (this.#output.isQuiet) return;
    this.#timer = setInterval(() => this.#tick(), everyMs);
    this.#timer.unref();
  }

  /** Ends the telling and takes the line away. */
  stop(): void {
    clearInterval(this.#timer);
    this.#clear();
  }

  /** A remark of its own line. */
  note(text: string): void {
    this.#clear();
    this.#output.note(text);
  }

  /** A call failed and is tried again. */
  retrying({ operation, delayMs, leftMs, leftTries, begun, error }: Omit<RetryEvent, "attempt">): void {
    if (this.#now() - this.#troubleAt < SAME_TROUBLE_MS) return;
    this.#troubleAt = this.#now();
    const why = error instanceof Error ? printable(error.message) : "";
    const when = delayMs === 0 ? "with the next server" : `in ${formatDuration(delayMs)}`;
    // What is most likely a wrong address is not waited for.
    const limit =
      leftTries === undefined ? `, for ${formatDuration(leftMs)} at most` : `, ${quantity(leftTries, "time")} at most`;
    this.note(`${troubleWords(error, begun)} ${when}${limit} (${operation}: ${why})`);
  }

  /** An upload waits for its turn. */
  waiting(collection: string, { reason, opensAt, timezone, leftMs }: UploadWait): void {
    const what = {
      busy: `for a place in ${collection}, which other backups hold`,
      window: `for the upload window of ${collection}`,
      interval: `until ${collection} takes its next version`,
    }[reason];
    const when = opensAt === undefined ? "" : ` (${formatTime(opensAt, timezone)})`;
    this.note(`waiting ${what}${when}, for ${formatDuration(leftMs)} at most`);
  }

  /** How often the transfer was taken up again so far; reported unless the loss was reported already. */
  resumed(times: number): void {
    if (times <= this.#resumes) return;
    this.#resumes = times;
    if (this.#now() - this.#troubleAt < TOLD_MS) return;
    this.#troubleAt = this.#now();
    this.note("interrupted, going on");
  }

  /** Passes on what a command says on its standard error; always, also with `--quiet`. */
  passThrough(bytes: Uint8Array): void {
    this.#clear();
    this.#output.stderr.write(bytes);
  }

  #tick(): void {
    const text = this.#render();
    if (!this.#onTerminal) {
      this.#output.note(text);
      return;
    }
    // Some terminals (in a container, over a serial line) say that they have 0 columns.
    const columns = this.#output.stderr.columns || 80;
    this.#output.stderr.write(`\r\u001b[2K${text.slice(0, columns - 1)}`);
    this.#drawn = true;
  }

  #clear(): void {
    if (this.#drawn) this.#output.stderr.write("\r\u001b[2K");
    this.#drawn = false;
  }
}

/** Only what was there can be lost, and a server that answers was not lost. */
function troubleWords(error: unknown, begun: boolean): string {
  const reason = error instanceof Error && "reason" in error ? error.reason : "";
  if (reason !== "") return "the server cannot do it now, trying again";
  return begun ? "connection lost, going on" : "no connection to the server, trying again";
}

/** Bytes per second over the last ten seconds or so. */
export class RateMeter {
  readonly #now: () => number;
  readonly #samples: { at: number; bytes: bigint }[] = [];

  constructor(now: () => number) {
    this.#now = now;
  }

  /** The rate at which a total grows, from the totals it was asked about before; empty while nothing can be said. */
  rate(total: bigint): string {
    const at = this.#now();
    this.#samples.push({ at, bytes: total });
    while (this.#samples.length > 2 && at - this.#samples[1]!.at > 10_000) this.#samples.shift();
    const first = this.#samples[0]!;
    return at - first.at < 500 ? "" : formatRate(total - first.bytes, at - first.at);
  }
}

/** `57.15 MiB/s`. */
export function formatRate(bytes: bigint, ms: number): string {
  return `${formatSize((bytes * 1000n) / BigInt(Math.max(1, Math.round(ms))))}/s`;
}
