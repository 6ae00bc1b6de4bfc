import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { AnswerFilter } from "./answer-filter.ts";
import type { Behaviour, Direction, Ending } from "./proxy-behaviours.ts";

/** Two sockets with one fate. */
interface Connection {
  readonly client: Socket;
  readonly upstream: Socket;
  /** Nothing passes any more. */
  ended: boolean;
}

/**
 * Starts a TCP proxy on loopback in front of a server.
 * @param target of connections, such as `http://127.0.0.1:8080`. It may move: a function is asked for each connection.
 * @param behaviours in force from the start, in the order in which bytes meet them; `heal` keeps these.
 */
export async function startProxy(target: string | (() => string), ...behaviours: Behaviour[]): Promise<TcpProxy> {
  const proxy = new TcpProxy(typeof target === "string" ? () => target : target, behaviours);
  await proxy.listen();
  return proxy;
}

/** A TCP proxy that does to connections what networks do; made by {@link startProxy}. */
export class TcpProxy {
  /** Connections that were ever opened. */
  connections = 0;
  readonly #server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#open(client));
  readonly #target: () => string;
  readonly #always: ReadonlySet<Behaviour>;
  /** A set can change while it is walked: what is new is met, and nothing is left out. */
  readonly #inForce: Set<Behaviour>;
  readonly #fired = new Map<string, number>();
  readonly #living = new Set<Connection>();

  constructor(target: () => string, behaviours: readonly Behaviour[]) {
    this.#target = target;
    this.#always = new Set(behaviours);
    this.#inForce = new Set(behaviours);
  }

  /** Takes connections from now on, on a free port. */
  async listen(): Promise<void> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
  }

  /** Where clients reach it, with the protocol of its target. */
  get url(): string {
    return `${new URL(this.#target()).protocol}//127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** How often behaviours of this name took something or ended a connection. */
  fired(name: Behaviour["name"]): number {
    return this.#fired.get(name) ?? 0;
  }

  /**
   * Puts this in force from now on, over open connections and new ones, after what is in force already. Returns what
   * ends it.
   */
  behave(behaviour: Behaviour): () => void {
    this.#inForce.add(behaviour);
    if (behaviour.takes === "connections") this.drop();
    return () => void this.#inForce.delete(behaviour);
  }

  /** Ends every connection. */
  drop(how: Ending = "reset"): void {
    for (const connection of this.#living) endConnection(connection, how);
  }

  /** Ends what was put in force after the start, and resets every connection, since bytes of it may be missing. */
  heal(): void {
    for (const behaviour of this.#inForce) if (!this.#always.has(behaviour)) this.#inForce.delete(behaviour);
    this.drop();
  }

  /** Resets every connection and takes no more. */
  async close(): Promise<void> {
    this.drop();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #open(client: Socket): void {
    this.connections++;
    client.on("error", () => {});
    const refusing = this.#thatTakes("connections");
    if (refusing !== undefined) {
      this.#count(refusing);
      client.resetAndDestroy();
      return;
    }
    const { hostname, port } = new URL(this.#target());
    const upstream = connect({ host: hostname, port: Number(port), allowHalfOpen: true, noDelay: true });
    const connection = { client, upstream, ended: false };
    this.#living.add(connection);
    for (const socket of [client, upstream]) {
      // An error of a connection is its end.
      socket.on("error", () => {});
      socket.once("close", () => {
        this.#living.delete(connection);
        client.destroy();
        upstream.destroy();
      });
    }
    this.#carry(connection, "up");
    this.#carry(connection, "down");
  }

  #carry(connection: Connection, direction: Direction): void {
    const { client, upstream } = connection;
    const [from, to] = direction === "up" ? [client, upstream] : [upstream, client];
    const answers = direction === "down" ? new AnswerFilter() : undefined;
    let passing = Promise.resolve();
    from.on("data", (chunk: Buffer) => {
      const arrivedAt = performance.now();
      const pass = async () => await this.#pass(connection, to, chunk, { direction, arrivedAt, answers });
      // One chunk at a time, so that who sends notices a slow reader; on a line with a delay more is on its way.
      if (!this.#inForce.values().some(({ delayMs }) => delayMs !== undefined)) from.pause();
      passing = passing.then(pass).then(() => void from.resume());
    });
    from.on("end", () => {
      passing = passing.then(() => void to.end());
    });
  }

  async #pass(
    connection: Connection,
    to: Socket,
    chunk: Buffer,
    on: { direction: Direction; arrivedAt: number; answers: AnswerFilter | undefined },
  ): Promise<void> {
    const { direction, arrivedAt, answers } = on;
    let bytes = chunk;
    let ending: Ending | undefined;
    if (answers !== undefined) {
      const losing = this.#thatTakes("answers");
      bytes = answers.push(bytes, losing !== undefined);
      if (losing !== undefined && bytes.length < chunk.length) this.#count(losing);
    }
    // Also what is put in force while the bytes pass.
    for (const behaviour of this.#inForce) {
      if (connection.ended) return;
      if (behaviour.takes === "bytes" && (behaviour.direction ?? direction) === direction) {
        this.#count(behaviour);
        return;
      }
      const wait = arrivedAt + (behaviour.delayMs ?? 0) - performance.now();
      if (wait > 1) await sleep(wait, undefined, { ref: false });
      const end = (how: Ending) => {
        this.#count(behaviour);
        ending = how;
      };
      if (behaviour.pass !== undefined) bytes = await behaviour.pass(bytes, { direction, arrivedAt, end });
    }
    if (connection.ended) return;
    // Of a connection that breaks meanwhile nobody waits for the rest.
    if (bytes.length > 0 && !to.write(bytes)) await once(to, "drain").catch(() => {});
    if (ending !== undefined) endConnection(connection, ending);
  }

  #thatTakes(what: Behaviour["takes"]): Behaviour | undefined {
    return this.#inForce.values().find(({ takes }) => takes === what);
  }

  #count({ name }: Behaviour): void {
    this.#fired.set(name, this.fired(name) + 1);
  }
}

function endConnection(connection: Connection, how: Ending): void {
  connection.ended = true;
  for (const socket of [connection.client, connection.upstream]) {
    if (how === "reset") socket.resetAndDestroy();
    else socket.end();
  }
}
