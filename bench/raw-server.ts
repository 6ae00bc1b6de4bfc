/**
 * The other end of the benchmark's baseline: takes and gives bytes over Node.js' own HTTP, with nothing of Strongroom.
 * The argument is a {@link RawServerTask} as JSON; prints its port as one line.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer as createHttp1 } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import type { AddressInfo } from "node:net";
import type { Readable, Writable } from "node:stream";
import { syntheticMessage } from "./synthetic-message.ts";

/** What both ends of a raw transfer do. */
export interface RawServerTask {
  readonly protocol: "HTTP/2" | "HTTP/1.1";
  /** Whether each end hashes what passes, by SHA-256. */
  readonly digest: boolean;
}

const MIB = 1024 * 1024;

/** Windows of a stream and of a connection: those that Strongroom gives a caller it knows. */
export const RAW_WINDOWS = { stream: 2 * MIB, connection: 4 * MIB } as const;

/** Writes a synthetic message of so many bytes, hashing where that is asked for. Ends the stream. */
export async function sendMessage(stream: Writable, bytes: number, digest: boolean): Promise<void> {
  const hash = digest ? createHash("sha256") : undefined;
  for await (const piece of syntheticMessage(bytes)) {
    hash?.update(piece);
    if (!stream.write(piece)) await once(stream, "drain");
  }
  hash?.digest();
  stream.end();
}

/** Takes a stream to its end, hashing where that is asked for. @returns how many bytes there were. */
export async function takeMessage(stream: Readable, digest: boolean): Promise<number> {
  const hash = digest ? createHash("sha256") : undefined;
  let taken = 0;
  stream.on("data", (piece: Uint8Array) => {
    hash?.update(piece);
    taken += piece.length;
  });
  await once(stream, "end");
  hash?.digest();
  return taken;
}

/** POST is discarded, GET /BYTES is answered with so many. */
async function answer(
  task: RawServerTask,
  request: { readonly method: string; readonly path: string },
  input: Readable,
  output: Writable,
): Promise<void> {
  if (request.method === "GET") {
    await sendMessage(output, Number(request.path.slice(1)), task.digest);
    return;
  }
  await takeMessage(input, task.digest);
  output.end();
}

async function serve(task: RawServerTask): Promise<void> {
  const failed = (error: unknown) => {
    console.error(error);
    process.exit(1);
  };
  const server =
    task.protocol === "HTTP/2"
      ? createHttp2({ settings: { initialWindowSize: RAW_WINDOWS.stream } })
          .on("session", (session) => session.setLocalWindowSize(RAW_WINDOWS.connection))
          .on("stream", (stream, headers) => {
            stream.respond({ ":status": 200 });
            const request = { method: headers[":method"]!, path: headers[":path"]! };
            answer(task, request, stream, stream).catch(failed);
          })
      : createHttp1((req, res) => {
          answer(task, { method: req.method!, path: req.url! }, req, res).catch(failed);
        });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  console.log((server.address() as AddressInfo).port);
  // Ends with whoever started it.
  process.stdin.on("end", () => process.exit(0)).resume();
}

if (import.meta.main) await serve(JSON.parse(process.argv[2]!) as RawServerTask);
