/** Chooses between HTTP/2 and HTTP/1.1 for the calls to one address. */
import type { DescMethod } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import { orAborted } from "../abort.ts";
import { leavesServer } from "./retry-kind.ts";
import { type SessionManager, SpeaksHttp1 } from "./session-manager.ts";

/** The two ways to one address. */
export interface HttpVersions {
  /** Over HTTP/2: windows are ours, and a dead connection is noticed by PING. */
  readonly http2: Transport;
  /** Over HTTP/1.1. */
  readonly http1: Transport;
  /** The HTTP/2 connection. */
  readonly manager: Pick<SessionManager, "ready" | "isOpen">;
  /** Called before a connection is opened; what it throws is what the call fails with. */
  readonly beforeConnect: (method: DescMethod, signal: AbortSignal | undefined) => Promise<void>;
}

/**
 * Speaks HTTP/2 where the other end does, else HTTP/1.1. Which one it is, is known before a byte of a call is sent, so
 * nothing is sent twice. After a failure over HTTP/1.1 the next call tries HTTP/2 again: what spoke HTTP/1.1 may have
 * been a page that stood in for a server that was away.
 */
export function eitherVersion({ http2, http1, manager, beforeConnect }: HttpVersions): Transport {
  let usesHttp1 = false;

  async function chosen(
    method: DescMethod,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
  ): Promise<Transport> {
    if (usesHttp1) return http1;
    if (!manager.isOpen) await beforeConnect(method, signal);
    try {
      await within(manager.ready(), signal, timeoutMs);
      return http2;
    } catch (error) {
      if (!(error instanceof SpeaksHttp1)) throw error;
      usesHttp1 = true;
      return http1;
    }
  }

  function failed(transport: Transport, error: unknown): void {
    if (transport === http1 && leavesServer(error)) usesHttp1 = false;
  }

  async function* watched<T>(messages: AsyncIterable<T>, transport: Transport): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (error) {
      failed(transport, error);
      throw error;
    }
  }

  return {
    unary: async (method, signal, timeoutMs, ...rest) => {
      const transport = await chosen(method, signal, timeoutMs);
      try {
        return await transport.unary(method, signal, timeoutMs, ...rest);
      } catch (error) {
        failed(transport, error);
        throw error;
      }
    },
    stream: async (method, signal, timeoutMs, ...rest) => {
      const transport = await chosen(method, signal, timeoutMs);
      try {
        const response = await transport.stream(method, signal, timeoutMs, ...rest);
        return { ...response, message: watched(response.message, transport) };
      } catch (error) {
        failed(transport, error);
        throw error;
      }
    },
  };
}

/** Waits no longer than a call may take. */
async function within(
  ready: Promise<void>,
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
): Promise<void> {
  const limit = new AbortController();
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(
          () => limit.abort(new ConnectError("the operation timed out", Code.DeadlineExceeded)),
          Math.max(0, timeoutMs),
        );
  try {
    await orAborted(ready, signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]));
  } catch (error) {
    // As the library puts it when the caller ends a call.
    if (signal?.aborted === true) throw ConnectError.from(signal.reason, Code.Canceled);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
