/**
 * A receiver of webhooks, as a program of its own: `node webhook-receiver.ts MODE [PORT]`. Writes a line of JSON for its
 * port, and one for each request when its body was read, before anything is answered. Modes: `ok`, `fail` (500),
 * `moved` (302 to itself), `hang` (never an answer), `reset` (ends the connection), `endless` (a body without an end),
 * `mixed` (one after another of some of these). A line on its input is the next mode.
 */
import { createServer } from "node:http";
import { createInterface } from "node:readline";

/** A request as the receiver writes it down. */
export interface ReceivedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** What was done with it. */
  readonly mode: string;
}

const MIXED = ["ok", "ok", "fail", "ok", "reset", "ok"];

let mode = process.argv[2] ?? "ok";
let count = 0;

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const now = mode === "mixed" ? MIXED[count++ % MIXED.length]! : mode;
    const { method = "", url: path = "", headers } = request;
    const body = Buffer.concat(chunks).toString("utf8");
    process.stdout.write(`${JSON.stringify({ method, path, headers, body, mode: now })}\n`);
    if (now === "reset") request.socket.destroy();
    else if (now === "fail") response.writeHead(500).end("no");
    else if (now === "moved") response.writeHead(302, { location: "/moved" }).end();
    else if (now === "endless") {
      response.writeHead(200);
      const more = setInterval(() => response.write(Buffer.alloc(64 * 1024)), 1);
      response.on("close", () => clearInterval(more));
    } else if (now !== "hang") response.writeHead(200).end("ok");
  });
});

server.listen(Number(process.argv[3] ?? 0), "127.0.0.1", () => {
  const address = server.address();
  process.stdout.write(`${JSON.stringify({ port: typeof address === "object" ? address?.port : 0 })}\n`);
});
createInterface({ input: process.stdin }).on("line", (line) => {
  mode = line;
});
