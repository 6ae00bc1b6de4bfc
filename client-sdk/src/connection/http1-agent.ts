/** Connections for HTTP/1.1, where the other end or a proxy on the way speaks nothing newer. */
import { Agent, type AgentOptions, type ClientRequestArgs } from "node:http";
import type { Duplex } from "node:stream";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Destination, dial } from "./dial.ts";

/** Opens its sockets as the HTTP/2 connections do, so that proxies and TLS are the same for both. */
export class Http1Agent extends Agent {
  /** What Node.js compares with the address of a request. */
  readonly protocol: string;
  readonly #destination: Destination;
  readonly #connectMs: () => number;

  /**
   * @param destination - where its sockets lead
   * @param connectMs - how long opening one may take, in milliseconds
   */
  constructor(destination: Destination, connectMs: () => number) {
    const options: AgentOptions = { keepAlive: true, scheduling: "fifo" };
    super(options);
    this.#destination = destination;
    this.#connectMs = connectMs;
    this.protocol = destination.url.protocol;
  }

  override createConnection(
    _options: ClientRequestArgs,
    done?: (error: Error | null, socket: Duplex) => void,
  ): Duplex | null | undefined {
    const ms = this.#connectMs();
    const ending = new AbortController();
    const timer = setTimeout(() => {
      const cause = Object.assign(new Error("connecting took too long"), { code: "ETIMEDOUT" });
      ending.abort(
        new ConnectError(`no connection within ${ms / 1000} s`, Code.Unavailable, undefined, undefined, cause),
      );
    }, ms);
    dial(this.#destination, ["http/1.1"], ending.signal)
      .then(
        (socket) => done?.(null, socket),
        (error: Error) => done?.(error, undefined as never),
      )
      .finally(() => clearTimeout(timer));
    return undefined;
  }
}
