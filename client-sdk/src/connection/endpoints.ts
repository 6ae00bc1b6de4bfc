/** Several addresses of one installation: which one is talked to, and when another one is. */
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { connectFailure, serverReason } from "./error-mapping.ts";
import { leavesServer } from "./retry-kind.ts";

/** One address. */
export interface Endpoint {
  /** The address. */
  readonly url: string;
  /** Makes calls to it. */
  readonly transport: Transport;
}

/** How long an address that failed is left out while there are others, in milliseconds. */
const AVOID_MS = 30_000;

/**
 * Sends every call to one address for as long as that is well. A call that fails for the network, or because the server
 * is not available, makes the next address the one to talk to; the call itself is repeated by whoever made it. Calls
 * under way elsewhere go on.
 */
export class Endpoints {
  /** For `createClient`. */
  readonly transport: Transport;
  readonly #endpoints: readonly Endpoint[];
  /** Until when each is left out, in milliseconds of the monotonic clock. */
  readonly #avoidUntil: number[];
  #current = 0;
  /** Whether an address was left, and no segment and no byte of a version went through since. */
  #isDoubtful = false;

  /**
   * @param endpoints - at least one; the first is talked to first
   * @param repeat - whether a unary call that did not reach its server is made again at the other addresses at once
   */
  constructor(endpoints: readonly Endpoint[], repeat: boolean) {
    this.#endpoints = endpoints;
    this.#avoidUntil = endpoints.map(() => 0);
    this.transport = { unary: this.#unary(repeat), stream: this.#stream() };
  }

  /** After a failure: whether there is an address left that did not fail just now, so that waiting makes no sense. */
  get elsewhere(): boolean {
    return this.#isWell(this.#current);
  }

  /**
   * Whether it makes sense to leave an address as soon as it is silent: there is another one that did not fail just
   * now. Not a second time before something went through: then it is the line that is slow, and leaving would begin
   * again with every segment.
   */
  mayLeave(index: number): boolean {
    if (this.#isDoubtful) return false;
    return this.#endpoints.some((_, other) => other !== index && this.#isWell(other));
  }

  #isWell(index: number): boolean {
    return this.#avoidUntil[index]! <= performance.now();
  }

  #unary(repeat: boolean): Transport["unary"] {
    return async (method, signal, ...rest) => {
      for (let others = this.#endpoints.length - 1; ; others--) {
        const index = this.#current;
        try {
          const response = await this.#endpoints[index]!.transport.unary(method, signal, ...rest);
          this.#avoidUntil[index] = 0;
          return response;
        } catch (error) {
          const left = this.#leave(index, error, signal);
          // Only where nothing can have happened: not every call may be made twice.
          if (!(repeat && others > 0 && left && this.elsewhere && (isRead(method) || hadNoEffect(error)))) throw error;
        }
      }
    };
  }

  #stream(): Transport["stream"] {
    return async (method, signal, ...rest) => {
      const index = this.#current;
      try {
        const response = await this.#endpoints[index]!.transport.stream(method, signal, ...rest);
        return { ...response, message: this.#noteFailures(response.message, index, signal) };
      } catch (error) {
        this.#leave(index, error, signal);
        throw error;
      }
    };
  }

  async *#noteFailures<T>(
    messages: AsyncIterable<T>,
    index: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T> {
    try {
      for await (const message of messages) {
        this.#avoidUntil[index] = 0;
        this.#isDoubtful = false;
        yield message;
      }
    } catch (error) {
      this.#leave(index, error, signal);
      throw error;
    }
  }

  /** Turns away from an address if its failure says so; returns whether it did. */
  #leave(index: number, error: unknown, signal: AbortSignal | undefined): boolean {
    // What the caller ended says nothing about the server, unless it ended it because nothing moved.
    if (signal?.aborted && !isDeadline(signal.reason)) return false;
    if (!leavesServer(error)) return false;
    this.#avoidUntil[index] = performance.now() + AVOID_MS;
    this.#isDoubtful = true;
    if (index !== this.#current) return true;
    const count = this.#endpoints.length;
    const next = Array.from({ length: count - 1 }, (_, i) => (index + 1 + i) % count);
    this.#current = next.find((candidate) => this.#isWell(candidate)) ?? (index + 1) % count;
    return true;
  }
}

function isDeadline(reason: unknown): boolean {
  return reason instanceof ConnectError && reason.code === Code.DeadlineExceeded;
}

/** Whether a method only reads. */
function isRead(method: DescMethod): boolean {
  return /^(Get|List|WhoAmI)/.test(method.name);
}

/** Whether a failed call surely did nothing: the server was not reached, or said that it is not available. */
function hadNoEffect(error: unknown): boolean {
  if (connectFailure(error) !== undefined) return true;
  return error instanceof ConnectError && error.code === Code.Unavailable && serverReason(error) !== undefined;
}
