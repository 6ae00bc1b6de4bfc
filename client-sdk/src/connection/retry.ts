/**
 * What is tried again, how soon and for how long.
 *
 * - An answer of the server is retried when its reason says that a retry can help.
 * - An error that no Strongroom server made (a broken connection, a proxy) is retried, since every call the SDK makes
 *   is idempotent.
 * - That holds from the first attempt to connect on, for a name that cannot be looked up too: a server that is away for
 *   five seconds when a nightly job begins must not cost the night. Only what is wrong with TLS or the protocol is
 *   given up after a few attempts as long as nothing was open: most likely the address is wrong.
 * - Delays are random between 0 and a bound that grows from 250 ms to 15 s by doubling ("full jitter"), so that clients
 *   do not come back all at once. A longer `google.rpc.RetryInfo` wins, but for an upload that waits for
 *   its place: it asks again within half a minute.
 * - Where another address of the installation did not fail just now, the call is made there without a delay.
 */
import { quantity } from "@strongroom/protocol/quantity";
import { orAborted, sleep } from "../abort.ts";
import { type StrongroomError, UnavailableError } from "../errors.ts";
import { toStrongroomError } from "./error-mapping.ts";
import { leavesServer, type RetryKind, retryKind } from "./retry-kind.ts";
import type { Timings } from "./timings.ts";
import type { Connection } from "./transport.ts";

/** The longest between two tries to get back the place of an upload, whatever the server asks for, in milliseconds. */
const OPEN_RETRY_MS = 30_000;

/** Called before every wait for a retry. */
export interface RetryEvent {
  /** What is going to be tried again, for example `WriteSegment`. */
  operation: string;
  /** How often it was tried, from 1. */
  attempt: number;
  /** How long the wait is, in milliseconds. */
  delayMs: number;
  /** How long failures may go on before it is given up, in milliseconds. */
  leftMs: number;
  /** How many tries are left, where it is given up after a few whatever the time; undefined where time alone decides. */
  leftTries?: number | undefined;
  /** Whether anything was achieved before; else there is nothing yet that could have been lost. */
  begun: boolean;
  /** Why the last attempt failed. */
  error: unknown;
}

/** What the retries of one upload or download share. */
export interface RetryScope {
  /** The delays and counts. */
  timings: Timings;
  /** How long failures may go on without any success, in milliseconds. */
  giveUpAfterMs: number;
  /** Whether the token is asked for again before each call, so that a refused session may be a valid one next time. */
  tokenMayChange: boolean;
  /** Address of the server, for messages. */
  url: string;
  /** Called before every wait. */
  onRetry: ((event: RetryEvent) => void) | undefined;
  /** The connection: whether there are other addresses, and giving up an attempt to connect that took too long. */
  connection: Pick<Connection, "addresses" | "elsewhere" | "stopConnecting">;
}

/** Retries the calls of one upload or download. What one of them achieves is a success for all. */
export class Retrier {
  readonly #scope: RetryScope;
  /** When something went forward last, in milliseconds of the monotonic clock. */
  #progressAt = performance.now();

  /** Whether something is open on the server: from then on an unreachable server is waited for. */
  #open = false;
  #uploadId = "";
  #isUndecided = false;

  /** What it means when the retries end, for the message. */
  #consequence = "";

  constructor(scope: RetryScope) {
    this.#scope = scope;
  }

  /**
   * The server answered, and there is something to lose now.
   * @param uploadId - the upload that is open; empty for a download
   */
  opened(uploadId = ""): void {
    this.#open = true;
    this.#uploadId = uploadId;
    if (uploadId !== "")
      this.#consequence =
        `Upload ${uploadId} was given up; nothing was published by it. Where the server could not be notified, ` +
        "it keeps its place in the collection until its lease ends or somebody aborts it.";
    this.progress();
  }

  /** The commit of the upload is asked for: whatever fails from now on, it may become a version. */
  committing(): void {
    this.#isUndecided = true;
    this.#consequence = `Whether upload ${this.#uploadId} became a version is not known; list the collection's versions.`;
    this.progress();
  }

  /** Something went forward: failures count again. */
  progress(): void {
    this.#progressAt = performance.now();
  }

  /**
   * Makes a call until it succeeds.
   *
   * @param operation - its name, for messages
   * @param signal - ends the attempts; its reason is thrown
   * @param call - one attempt, with its number from 1
   * @throws StrongroomError the mapped error when a retry cannot help
   * @throws UnavailableError when the time for retries is over
   */
  async run<T>(operation: string, signal: AbortSignal, call: (attempt: number) => Promise<T>): Promise<T> {
    let firstFailureAt: number | undefined;
    let delays = 0;
    const { connection } = this.#scope;
    const counts: Record<RetryKind, number> = { no: 0, few: 0, session: 0, open: 0, connect: 0, patient: 0 };
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      try {
        return await orAborted(call(attempt), signal);
      } catch (error) {
        signal.throwIfAborted();
        const kind = retryKind(error);
        counts[kind] += 1;
        const mapped = toStrongroomError(error, this.#scope);
        if (!this.#mayRetry(kind, counts[kind])) throw mapped;
        // An established connection stays: on a slow line an answer may just wait in line after segments, and pings
        // find out whether it is dead.
        if (mapped.code === "deadline_exceeded" && mapped.reason === "") connection.stopConnecting();
        const atOnce = leavesServer(error) && connection.elsewhere;
        const delayMs = atOnce ? 0 : this.#delay(++delays, kind, mapped.retryAfterMs);
        const now = performance.now();
        firstFailureAt ??= now;
        // Counted from the failure, not from the last success: a source may have been silent for hours between the two.
        const failingMs = now - Math.max(firstFailureAt, this.#progressAt);
        const leftMs = this.#scope.giveUpAfterMs - failingMs;
        if (delayMs > leftMs) throw this.#gaveUp(operation, attempt, failingMs, mapped);
        const leftTries = this.#leftTries(kind, counts[kind]);
        this.#scope.onRetry?.({ operation, attempt, delayMs, leftMs, leftTries, begun: this.#open, error: mapped });
        await sleep(delayMs, signal);
      }
    }
  }

  /** Tries that are left after so many of a kind. */
  #leftTries(kind: RetryKind, count: number): number | undefined {
    const { timings, connection } = this.#scope;
    if (kind === "few" || kind === "session") return timings.fewRetries - count + 1;
    if (kind === "connect" && !this.#open) return timings.connectAttempts * connection.addresses - count;
    return undefined;
  }

  #mayRetry(kind: RetryKind, count: number): boolean {
    const { timings, tokenMayChange, connection } = this.#scope;
    switch (kind) {
      case "no":
        return false;
      case "few":
        return count <= timings.fewRetries;
      case "session":
        return this.#open && tokenMayChange && count <= timings.fewRetries;
      case "open":
        return this.#open;
      case "connect":
        return this.#open || count < timings.connectAttempts * connection.addresses;
      case "patient":
        return true;
    }
  }

  #delay(count: number, kind: RetryKind, retryAfterMs: number | undefined): number {
    const { retryBaseMs, retryMaxMs } = this.#scope.timings;
    // The few attempts to reach a server at all are spread over some seconds.
    const doublings = count - 1 + (kind === "connect" && !this.#open ? 2 : 0);
    const backOff = Math.min(retryBaseMs * 2 ** doublings, retryMaxMs) * Math.random();
    // A lease of somebody else may run for longer than this has patience, and end long before.
    const askedFor = kind === "open" ? Math.min(retryAfterMs ?? 0, OPEN_RETRY_MS) : (retryAfterMs ?? 0);
    return Math.round(Math.max(backOff, askedFor * (1 + Math.random() / 10)));
  }

  #gaveUp(operation: string, attempts: number, failingMs: number, last: StrongroomError): UnavailableError {
    const consequence = this.#consequence === "" ? "" : ` ${this.#consequence}`;
    return new UnavailableError(
      `${last.message.replace(/[.\s]+$/, "")}. ${operation} failed ${quantity(attempts, "time")}, for ` +
        `${Math.round(failingMs / 1000)} s of the ${Math.round(this.#scope.giveUpAfterMs / 1000)} s that it may, and is ` +
        `not tried any longer.${consequence}`,
      {
        reason: last.reason,
        metadata: last.metadata,
        requestId: last.requestId,
        uploadId: this.#uploadId,
        isUndecided: this.#isUndecided,
        cause: last,
        ...(last.retryAfterMs === undefined ? {} : { retryAfterMs: last.retryAfterMs }),
      },
    );
  }
}
