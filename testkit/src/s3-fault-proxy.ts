import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { ExecutionContext } from "ava";

/** What a request to S3 is, by its method and query. */
export type S3Operation = "begin" | "part" | "list-parts" | "complete" | "abort" | "put" | "head" | "get" | "other";

/**
 * What goes wrong with a request:
 *
 * - `none`: nothing, so that a fault strikes a later one;
 * - `lose-answer`: it takes effect, but the connection breaks before the answer;
 * - `cut`: the connection breaks in the middle, on the way there or, for reading, back;
 * - `stall`: nothing is read and nothing is said;
 * - `busy`, `error`: 503 SlowDown or 500 InternalError at once, while the body may still be on its way;
 * - `error-in-200`: 200 with an error inside, as S3 does for completions that fail late;
 * - `cut-200`: 200 with blanks, then the end: what is left when S3 dies while it completes;
 * - `early-ok`: 200 before the body was read.
 */
export type S3Fault =
  | "none"
  | "lose-answer"
  | "cut"
  | "stall"
  | "busy"
  | "error"
  | "error-in-200"
  | "cut-200"
  | "early-ok";

/** A moment of a request. */
export type S3Moment = "arrived" | "done";

interface Catch {
  readonly operation: S3Operation;
  readonly moment: S3Moment;
  readonly strike: () => void;
}

/** A real HTTP proxy in front of an S3 server. It passes the Host header on, which the signature covers. */
export interface S3FaultProxy {
  readonly endpoint: string;
  /** Makes the next requests of this kind go wrong. */
  fail(operation: S3Operation, fault: S3Fault, times?: number): void;
  /**
   * Does this once, when the next request of this kind arrives, or when its effect is there. That request is never
   * answered, and when it was caught on arrival it has no effect either. Returns what takes it back.
   */
  at(operation: S3Operation, moment: S3Moment, strike: () => void): () => void;
  /** Faults that have not struck yet. */
  readonly left: string[];
  /** Requests seen, by kind. */
  readonly seen: ReadonlyMap<S3Operation, number>;
}

/** Starts a proxy that ends with the test, or with what else tears down. */
export async function startS3FaultProxy(t: Pick<ExecutionContext, "teardown">, target: string): Promise<S3FaultProxy> {
  const faults: { operation: S3Operation; fault: S3Fault }[] = [];
  const seen = new Map<S3Operation, number>();
  const catches = new Set<Catch>();
  const caught = (operation: S3Operation, moment: S3Moment): boolean => {
    const found = [...catches].find((each) => each.operation === operation && each.moment === moment);
    if (found === undefined) return false;
    catches.delete(found);
    found.strike();
    return true;
  };
  const server = createServer((request, response) => {
    request.on("error", () => {});
    response.on("error", () => {});
    const operation = operationOf(request);
    seen.set(operation, (seen.get(operation) ?? 0) + 1);
    if (caught(operation, "arrived")) return;
    const at = faults.findIndex((each) => each.operation === operation);
    const fault = at === -1 ? undefined : faults.splice(at, 1)[0]?.fault;
    strike(fault, { target, request, response, caughtWhenDone: () => caught(operation, "done") });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    fail: (operation, fault, times = 1) => {
      for (let count = 0; count < times; count++) faults.push({ operation, fault });
    },
    at: (operation, moment, strike) => {
      const each = { operation, moment, strike };
      catches.add(each);
      return () => void catches.delete(each);
    },
    get left() {
      return faults.map(({ operation, fault }) => `${fault} ${operation}`);
    },
    seen,
  };
}

function operationOf({ method, url = "" }: IncomingMessage): S3Operation {
  const query = new URL(url, "http://localhost").searchParams;
  const upload = query.has("uploadId");
  if (method === "POST") return query.has("uploads") ? "begin" : upload ? "complete" : "other";
  if (method === "PUT") return upload ? "part" : "put";
  if (method === "DELETE") return upload ? "abort" : "other";
  if (method === "HEAD") return "head";
  if (upload) return "list-parts";
  return query.has("list-type") || query.has("uploads") ? "other" : "get";
}

/** A request on its way, and whether somebody waits for its effect. */
interface Exchange {
  readonly target: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly caughtWhenDone: () => boolean;
}

function strike(fault: S3Fault | undefined, exchange: Exchange): void {
  const { response } = exchange;
  const error = (status: number, code: string) =>
    response.writeHead(status, { "content-type": "application/xml", connection: "close" }).end(xmlError(code));
  switch (fault) {
    case "stall":
      return;
    case "busy":
      return void error(503, "SlowDown");
    case "error":
      return void error(500, "InternalError");
    case "error-in-200":
      return void error(200, "InternalError");
    case "early-ok":
      return void response.writeHead(200, { etag: '"early"' }).end();
    case "cut-200":
      response.writeHead(200, { "content-type": "application/xml" }).write(" ");
      return void setImmediate(() => response.end());
    default:
      forward(fault, exchange);
  }
}

function xmlError(code: string): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>Injected.</Message></Error>`;
}

function forward(fault: S3Fault | undefined, { target, request, response, caughtWhenDone }: Exchange): void {
  const { hostname, port } = new URL(target);
  const { method, url, headers } = request;
  const onward = httpRequest({ hostname, port, method, path: url, headers, agent: false });
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  onward.on("response", (answer) => {
    if (fault === "lose-answer") {
      answer.resume();
      return void answer.on("end", () => response.destroy());
    }
    if ((answer.statusCode ?? 502) < 300 && caughtWhenDone()) return;
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    let passed = 0;
    answer.on("data", (chunk: Buffer) => {
      passed += chunk.length;
      response.write(chunk);
      if (fault === "cut" && method === "GET" && passed > 100_000) response.destroy();
    });
    answer.on("end", () => response.end());
  });
  let received = 0;
  request.on("data", (chunk: Buffer) => {
    received += chunk.length;
    onward.write(chunk);
    if (fault === "cut" && received > 1_000_000) {
      onward.destroy();
      request.destroy();
    }
  });
  request.on("end", () => {
    if (fault === "cut" && method !== "GET") response.destroy();
    else onward.end();
  });
}
