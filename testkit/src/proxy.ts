import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { AnswerFilter } from "./answer-filter.ts";
import type { Behaviour, Direction, Ending } from "./proxy-behaviours.ts";

/** A TCP proxy on loopback that does to connections what networks do. */
export interface TcpProxy {
  /** Where clients reach it, with the protocol of its target. */
  readonly url: string;
  /** Connections that were ever opened. */
  readonly connections: number;
  /** How often behaviours of this name took something or ended a connection. */
  fired(name: Behaviour["name"]): number;
  /** Puts this in force from now on, over open connections and new ones, after what is in force already. Returns what ends it. */
  behave(behaviour: Behaviour): () => void;
  /** Ends every connection. */
  drop(how?: Ending): void;
  /** Ends what was put in force after the start, and resets every connection, since bytes of it may be missing. */
  heal(): void;
  close(): Promise<void>;
}

/**
 * Starts a proxy in front of a server.
 * @param target of connections, such as `http://127.0.0.1:8080`. It may move: a function is asked for each connection.
 * @param behaviours in force from the start, in the order in which bytes meet them; `heal` keeps these.
 */
export async function startProxy(target: string | (() => string), ...behaviours: Behaviour[]): Promise<TcpProxy> {
  const targetNow = () => new URL(typeof target === "string" ? target : target());
  const line = new Line(behaviours);
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const { hostname, port } = targetNow();
    line.open(client, () => connect({ host: hostname, port: Number(port), allowHalfOpen: true, noDelay: true }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `${targetNow().protocol}//127.0.0.1:${port}`,
    get connections() {
      return line.connections;
    },
    fired: (name) => line.fired.get(name) ?? 0,
    behave: (behaviour) => line.behave(behaviour),
    drop: (how = "reset") => line.drop(how),
    heal() {
      line.heal();
    },
    async close() {
      line.drop("reset");
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Two sockets with one fate. */
interface Connection {
  readonly client: Socket;
  readonly upstream: Socket;
  /** Nothing passes any more. */
  ended: boolean;
}

class Line {
  connections = 0;
  readonly fired = new Map<string, number>();
  readonly #always: ReadonlySet<Behaviour>;
  /** A set can change while it is walked: what is new is met, and nothing is left out. */
  readonly #inForce: Set<Behaviour>;
  readonly #open = new Set<Connection>();

  constructor(always: readonly Behaviour[]) {
    this.#always = new Set(always);
    this.#inForce = new Set(always);
  }

  behave(behaviour: Behaviour): () => void {
    this.#inForce.add(behaviour);
    if (behaviour.takes === "connections") this.drop("reset");
    return () => void this.#inForce.delete(behaviour);
  }

  drop(how: Ending): void {
    for (const connection of this.#open) endConnection(connection, how);
  }

  heal(): void {
    for (const behaviour of this.#inForce) if (!this.#always.has(behaviour)) this.#inForce.delete(behaviour);
    this.drop("reset");
  }

  open(client: Socket, dial: () => Socket): void {
    this.connections++;
    client.on("error", () => {});
    const refusing = this.#thatTakes("connections");
    if (refusing !== undefined) {
      this.#count(refusing);
      client.resetAndDestroy();
      return;
    }
    const upstream = dial();
    const connection = { client, upstream, ended: false };
    this.#open.add(connection);
    for (const socket of [client, upstream]) {
      // An error of a connection is its end.
      socket.on("error", () => {});
      socket.once("close", () => {
        this.#open.delete(connection);
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
    this.fired.set(name, (this.fired.get(name) ?? 0) + 1);
  }
}

function endConnection(connection: Connection, how: Ending): void {
  connection.ended = true;
  for (const socket of [connection.client, connection.upstream]) {
    if (how === "reset") socket.resetAndDestroy();
    else socket.end();
  }
}
