/**
 * The client of the benchmark's baseline, in a process of its own: moves bytes over Node.js' own HTTP and prints what it
 * took, as `client.ts` does. The argument is a {@link RawClientTask} as JSON.
 */
import { once } from "node:events";
import { type IncomingMessage, request as requestHttp1 } from "node:http";
import { connect } from "node:http2";
import { RAW_WINDOWS, type RawServerTask, sendMessage, takeMessage } from "./raw-server.ts";

/** What the client of a raw transfer is to do. */
export interface RawClientTask extends RawServerTask {
  readonly port: number;
  readonly direction: "upload" | "download";
  readonly bytes: number;
}

const { protocol, digest, port, direction, bytes } = JSON.parse(process.argv[2]!) as RawClientTask;
const url = `http://127.0.0.1:${port}`;
const isUpload = direction === "upload";

async function overHttp2(): Promise<number> {
  const session = connect(url, { settings: { initialWindowSize: RAW_WINDOWS.stream, enablePush: false } });
  await once(session, "connect");
  session.setLocalWindowSize(RAW_WINDOWS.connection);
  const stream = session.request(
    { ":method": isUpload ? "POST" : "GET", ":path": `/${bytes}` },
    { endStream: !isUpload },
  );
  if (isUpload) await sendMessage(stream, bytes, digest);
  const taken = await takeMessage(stream, digest && !isUpload);
  session.close();
  return isUpload ? bytes : taken;
}

async function overHttp1(): Promise<number> {
  const request = requestHttp1(`${url}/${bytes}`, { method: isUpload ? "POST" : "GET" });
  const answered = once(request, "response");
  if (isUpload) await sendMessage(request, bytes, digest);
  else request.end();
  const [response] = (await answered) as [IncomingMessage];
  const taken = await takeMessage(response, digest && !isUpload);
  return isUpload ? bytes : taken;
}

const started = performance.now();
const before = process.resourceUsage();
const moved = await (protocol === "HTTP/2" ? overHttp2() : overHttp1());
const after = process.resourceUsage();
const cpuMicros = after.userCPUTime - before.userCPUTime + (after.systemCPUTime - before.systemCPUTime);
console.log(
  JSON.stringify({
    bytes: moved,
    seconds: (performance.now() - started) / 1000,
    cpuSeconds: cpuMicros / 1e6,
    rssMiB: Math.round(after.maxRSS / 1024),
  }),
);
