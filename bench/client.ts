/**
 * The client process of the benchmark: uploads or downloads through the SDK and prints what it took, as one line of JSON.
 * Arguments: upload|download URL COLLECTION BYTES COUNT [CA_FILE]. The token comes on stdin.
 */
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { StrongroomClient } from "@strongroom/client-sdk";
import { syntheticMessage } from "./synthetic-message.ts";

const [direction, url = "", collection = "", bytes = "0", count = "1", ca] = process.argv.slice(2);
const token = (await text(process.stdin)).trim();

async function once(): Promise<bigint> {
  const client = new StrongroomClient({ url, token, ...(ca === undefined ? {} : { tls: { ca: readFileSync(ca) } }) });
  try {
    if (direction === "upload") {
      const source = syntheticMessage(Number(bytes));
      const { version } = await client.upload({ collection, source, encryption: { kind: "none" } });
      return version.size;
    }
    const { outputBytes } = await client.download({ collection, sink: () => {} });
    return outputBytes;
  } finally {
    client.close();
  }
}

const started = performance.now();
const before = process.resourceUsage();
const moved = await Promise.all(Array.from({ length: Number(count) }, once));
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
