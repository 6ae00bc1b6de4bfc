import { once } from "node:events";
import { type Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { BlobStoreUnavailableError } from "../../app/ports/blob-store.ts";
import { declaredBody } from "../blob-store/declared-body.ts";

/** Answers to a part are a few hundred bytes. */
const MOST_ANSWER_BYTES = 64 * 1024;

/** A signed request, ready to be sent. */
export interface SignedRequest {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number | undefined;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly agent: Agent;
  /** Give up when the store takes nothing and says nothing for this long, in milliseconds. */
  readonly silenceMs: number;
}

/** The answer. */
export interface PartAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

/** The body of a part on its way into a request, and what became of it. */
export class PartBody {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #size: bigint;
  readonly #signal: AbortSignal;
  /** Set when the body or the caller's signal ended the request, not the store. */
  failure: { readonly error: unknown } | undefined;

  /** @param size in bytes, exactly. */
  constructor(source: AsyncIterable<Uint8Array>, size: bigint, signal: AbortSignal) {
    this.#source = source;
    this.#size = size;
    this.#signal = signal;
  }

  /**
   * Sends the body and gives the answer. The body is read in step with the socket, chunk by chunk without a copy, and a
   * chunk is asked for only when the one before has left this process, so the source may use its buffer again. The last
   * byte waits until the source has ended well: a body that breaks off or has another size never becomes a complete
   * request. Then the connection is closed and the store drops what it has.
   *
   * An answer that comes before the end (a refusal, an overload) ends the sending.
   * @throws an error, with {@link failure} set when it is the body's or the signal's; BlobStoreUnavailableError for
   *   silence.
   */
  async send(options: SignedRequest): Promise<PartAnswer> {
    const { secure, host, port, method, path, headers, agent, silenceMs } = options;
    const request = (secure ? httpsRequest : httpRequest)({ host, port, method, path, headers, agent });
    const watch = silenceWatch(request, silenceMs);
    const sending = new AbortController();
    const onAbort = () => {
      this.failure ??= { error: this.#signal.reason };
      sending.abort(this.#signal.reason);
      request.destroy();
    };
    const answer = firstAnswer(request);
    // Whatever the store says or does ends the wait for a silent source.
    const interrupted = answer.catch(() => {}).finally(() => sending.abort(new Error("the request is over")));
    this.#signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (this.#signal.aborted) onAbort();
      const whole = await this.#write(request, sending.signal, interrupted, watch);
      const response = await watch.during(answer);
      const body = await watch.during(readAnswer(response));
      const status = response.statusCode ?? 0;
      if (!whole && status < 300)
        throw new BlobStoreUnavailableError("The store answered before it had the whole part.");
      if (!whole) request.destroy();
      return { status, headers: flatHeaders(response), body };
    } catch (error) {
      request.destroy();
      throw error;
    } finally {
      this.#signal.removeEventListener("abort", onAbort);
      watch.stop();
    }
  }

  /** Returns whether everything was written; not when the store answered or hung up before. */
  async #write(
    request: ClientRequest,
    signal: AbortSignal,
    interrupted: Promise<unknown>,
    watch: SilenceWatch,
  ): Promise<boolean> {
    let left = this.#size;
    let last: Uint8Array | undefined;
    try {
      for await (const chunk of declaredBody(this.#source, this.#size, signal)) {
        left -= BigInt(chunk.length);
        // A copy of one byte, since the source may use its buffer again while it looks for its end.
        if (left === 0n) last = Uint8Array.of(chunk[chunk.length - 1]!);
        const now = last === undefined ? chunk : chunk.subarray(0, -1);
        if (now.length === 0) continue;
        const written = new Promise<void>((resolve) => request.write(now, () => resolve()));
        await watch.during(Promise.race([written, interrupted]));
      }
    } catch (error) {
      // The store was first: what it said counts.
      if (signal.aborted && !this.#signal.aborted) return false;
      this.failure ??= { error };
      throw error;
    }
    request.end(last);
    return true;
  }
}

/** Destroys a request when nothing moves. */
interface SilenceWatch {
  /** Watches while something is waited for that the store has to do. */
  during<T>(waiting: Promise<T>): Promise<T>;
  stop(): void;
}

function silenceWatch(request: ClientRequest, silenceMs: number): SilenceWatch {
  let timer: NodeJS.Timeout | undefined;
  const stop = () => clearTimeout(timer);
  return {
    stop,
    async during(waiting) {
      timer = setTimeout(() => {
        request.destroy(new BlobStoreUnavailableError(`The store was silent for ${silenceMs / 1000} s.`));
      }, silenceMs);
      try {
        return await waiting;
      } finally {
        stop();
      }
    },
  };
}

function firstAnswer(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.once("response", resolve);
    // Stays for good: an error that comes after the answer must not end the process.
    request.on("error", reject);
    request.once("close", () => reject(new BlobStoreUnavailableError("The store closed the connection.")));
  });
}

async function readAnswer(response: IncomingMessage): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  response.on("data", (chunk: Buffer) => {
    size += chunk.length;
    if (size > MOST_ANSWER_BYTES) response.destroy(new Error(`the answer has more than ${MOST_ANSWER_BYTES} bytes`));
    else chunks.push(chunk);
  });
  await once(response, "end");
  return Buffer.concat(chunks);
}

function flatHeaders(response: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(response.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return headers;
}
