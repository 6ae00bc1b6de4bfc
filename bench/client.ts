/**
 * The client process of the benchmark: uploads or downloads through the SDK and prints what it took, as one line of
 * JSON. The argument is a {@link ClientTask} as JSON; the token comes on stdin.
 */
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { StrongroomClient } from "@strongroom/client-sdk";
import { syntheticMessage } from "./synthetic-message.ts";

/** What the client process is to do. */
export interface ClientTask {
  readonly direction: "upload" | "download";
  readonly url: string;
  readonly collection: string;
  readonly bytes: number;
  /** Transfers at once. */
  readonly count: number;
  /** Segments under way at once; undefined for the SDK's default. */
  readonly parallel: number | undefined;
  /** File with the authority of the server's certificate; undefined without TLS. */
  readonly ca: string | undefined;
}

const { direction, url, collection, bytes, count, parallel, ca } = JSON.parse(process.argv[2]!) as ClientTask;
const token = (await text(process.stdin)).trim();

async function once(): Promise<bigint> {
  const client = new StrongroomClient({ url, token, ...(ca === undefined ? {} : { tls: { ca: readFileSync(ca) } }) });
  try {
    if (direction === "upload") {
      const source = syntheticMessage(bytes);
      const { version } = await client.upload({
        collection,
        source,
        encryption: { kind: "none" },
        ...(parallel === undefined ? {} : { parallel }),
      });
      return version.sizeBytes;
    }
    const { outputBytes } = await client.download({ collection, sinkPieces: () => {} });
    return outputBytes;
  } finally {
    client.close();
  }
}

const started = performance.now();
const before = process.resourceUsage();
const moved = await Promise.all(Array.from({ length: count }, once));
const after = process.resourceUsage();
const cpuMicros = after.userCPUTime - before.userCPUTime + (after.systemCPUTime - before.systemCPUTime);
console.log(
  JSON.stringify({
    bytes: Number(moved.reduce((a, b) => a + b, 0n)),
    seconds: (performance.now() - started) / 1000,
    cpuSeconds: cpuMicros / 1e6,
    rssMiB: Math.round(after.maxRSS / 1024),
  }),
);
