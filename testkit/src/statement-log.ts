import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A relay in front of PostgreSQL that writes down every statement that is sent through it, and changes nothing. */
export interface StatementLog {
  /** What a `postgres://` URL becomes so that its statements pass here. */
  through(url: string): string;
  /** The texts of the statements since the last time, in their order; BEGIN and COMMIT are some of them. */
  take(): string[];
  close(): Promise<void>;
}

/** Bytes before the first message of a client that has a type: the start-up packet, which has none. */
const LENGTH_BYTES = 4;

/**
 * Starts a relay to a PostgreSQL server on loopback.
 * @param port of the server.
 */
export async function startStatementLog(port: number): Promise<StatementLog> {
  let statements: string[] = [];
  const sockets = new Set<Socket>();
  const relay = createServer({ noDelay: true }, (client) => {
    const server = connect({ host: "127.0.0.1", port, noDelay: true });
    const read = statementReader((text) => statements.push(text));
    client.on("data", read);
    client.pipe(server).pipe(client);
    for (const socket of [client, server]) {
      sockets.add(socket);
      // The other one ends with it.
      socket.on("error", () => socket.destroy()).on("close", () => [client, server].map((each) => each.destroy()));
    }
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  return {
    through(url) {
      const changed = new URL(url);
      changed.port = String((relay.address() as AddressInfo).port);
      return changed.href;
    },
    take() {
      const taken = statements;
      statements = [];
      return taken;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      relay.close();
      await once(relay, "close");
    },
  };
}

/**
 * Reads the messages of one connection's client (PostgreSQL, "Frontend/Backend Protocol"): a simple query, and each
 * use of a prepared statement, by the text that it was prepared from.
 */
function statementReader(found: (text: string) => void): (piece: Buffer) => void {
  const prepared = new Map<string, string>();
  let rest: Buffer = Buffer.alloc(0);
  let isStarted = false;
  const onMessage = (type: string, body: Buffer) => {
    const texts = body.toString("latin1").split("\0");
    if (type === "P") prepared.set(texts[0]!, texts[1]!);
    else if (type === "Q") found(texts[0]!);
    else if (type === "B") found(prepared.get(texts[1]!)!);
  };
  return (piece) => {
    rest = Buffer.concat([rest, piece]);
    for (;;) {
      const head = isStarted ? 1 : 0;
      if (rest.length < head + LENGTH_BYTES) return;
      const end = head + rest.readInt32BE(head);
      if (rest.length < end) return;
      if (isStarted) onMessage(String.fromCharCode(rest[0]!), rest.subarray(head + LENGTH_BYTES, end));
      isStarted = true;
      rest = rest.subarray(end);
    }
  };
}
