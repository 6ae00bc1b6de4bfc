/**
 * `npm run bench`: throughput, CPU and memory of uploads and downloads through the SDK, on loopback, server and client
 * in processes of their own. Linux only, since CPU and memory of the server are read from /proc.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { StrongroomClient } from "@strongroom/client-sdk";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { Authority } from "@strongroom/testkit/peers/certificates";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { S3_PEERS, startS3 } from "@strongroom/testkit/peers/s3";
import { endWithUs, type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import { startProxy } from "@strongroom/testkit/proxy";
import { delay } from "@strongroom/testkit/proxy-behaviours";
import type { ClientTask } from "./client.ts";
import {
  type ClientFigures,
  COMPARED,
  type Figures,
  ratiosOf,
  rowOf,
  type Summary,
  summaryOf,
  TABLE_HEAD,
} from "./figures.ts";
import type { RawClientTask } from "./raw-client.ts";
import type { RawServerTask } from "./raw-server.ts";

const MIB = 1024 * 1024;
const USAGE = `Usage: npm run bench -- [options]

  --runs N       runs of each case (3)
  --mib N        size of an upload in MiB (2048)
  --only TEXT    only cases whose name contains the text; "compared" for those beside raw HTTP
  --quick        one run of 256 MiB, and only what runs side by side with raw HTTP
  --json FILE    writes the figures and their ratios there too
  --tls          with certificates made by openssl
  --parallel N   segments under way (the SDK's default)
  --delay MS     a line with this round trip between client and server (none)
  --help         shows this

The cases with PostgreSQL and S3 need the programs that peers/install.sh installs.
`;
const { values } = parseArgs({
  options: {
    runs: { type: "string" },
    mib: { type: "string" },
    only: { type: "string", default: "" },
    quick: { type: "boolean", default: false },
    json: { type: "string" },
    tls: { type: "boolean", default: false },
    parallel: { type: "string" },
    delay: { type: "string", default: "0" },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const runs = Number(values.runs ?? (values.quick ? 1 : 3));
const size = Number(values.mib ?? (values.quick ? 256 : 2048)) * MIB;
const delayMs = Number(values.delay);

/** A process under measurement. */
interface Measured {
  readonly pid: number;
  /** The event loop's delay since the last time it was asked, in milliseconds. */
  readonly eventLoopDelay: () => Promise<number>;
}

/** A server under measurement. */
interface Subject extends Measured {
  readonly server: ServerProcess;
  /** Where clients reach it. */
  readonly url: string;
  readonly token: string;
  /** File with the authority of its certificate; undefined without TLS. */
  readonly ca: string | undefined;
}

/** CPU seconds a process has used, from /proc/PID/stat (proc(5), fields 14 and 15, in ticks of 10 ms). */
async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Peak resident memory since the last reset, in MiB. */
async function peakRssOf(pid: number): Promise<number> {
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024);
}

type Transfer = Pick<ClientTask, "direction" | "bytes" | "count">;

async function client({ url, token, ca }: Subject, transfer: Transfer): Promise<ClientFigures> {
  const script = fileURLToPath(new URL("client.ts", import.meta.url));
  const parallel = values.parallel === undefined ? undefined : Number(values.parallel);
  const task: ClientTask = { ...transfer, url, collection: "bench", parallel, ca };
  return await clientProcess(script, task, token);
}

async function clientProcess(script: string, task: unknown, input: string): Promise<ClientFigures> {
  const child = spawn(process.execPath, [script, JSON.stringify(task)], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(input);
  return JSON.parse(await text(child.stdout)) as ClientFigures;
}

async function measure({ pid, eventLoopDelay }: Measured, work: () => Promise<ClientFigures>): Promise<Figures> {
  await writeFile(`/proc/${pid}/clear_refs`, "5");
  await eventLoopDelay();
  const before = await cpuSecondsOf(pid);
  const figures = await work();
  return {
    ...figures,
    serverCpuSeconds: (await cpuSecondsOf(pid)) - before,
    serverRssMiB: await peakRssOf(pid),
    serverDelayMs: await eventLoopDelay(),
  };
}

const COLLECTION = collectionDocument(
  "bench",
  "maxBackupsCount: 1, maxOneVersionSize: 8G, maxCollectionSize: 600G, maxParallelUploads: 64",
);

/** Where a case keeps its objects and its rows. */
type StorageName = "discarding memory" | "memory" | "directory" | (typeof S3_PEERS)[number];
type DatabaseName = "PGlite" | "PostgreSQL";

/** Something of the case's own, to be ended after it. */
interface Opened {
  readonly env: Readonly<Record<string, string>>;
  remove(): Promise<void>;
}

async function openStorage(name: StorageName, dir: string): Promise<Opened> {
  const peer = S3_PEERS.find((s3) => s3 === name);
  if (peer !== undefined) {
    const s3 = await startS3(peer);
    return { env: { ...s3.env, STRONGROOM_STORAGE: s3.storageUrl("bench") }, remove: s3.remove };
  }
  const url = name === "directory" ? `file://${dir}/storage` : name === "memory" ? "mem://" : "mem://discard";
  return { env: { STRONGROOM_STORAGE: url }, remove: async () => {} };
}

async function openDatabase(name: DatabaseName, dir: string, storage: StorageName): Promise<Opened> {
  if (name === "PostgreSQL") {
    const postgres = await startPostgres({ fsync: "on" });
    return { env: { STRONGROOM_DATABASE: postgres.url }, remove: postgres.remove };
  }
  // A database that survives would not fit a store that does not.
  const lost = storage === "memory" || storage === "discarding memory";
  return { env: { STRONGROOM_DATABASE: `pglite:${lost ? "memory" : `${dir}/database`}` }, remove: async () => {} };
}

async function withServer(
  storageName: StorageName,
  databaseName: DatabaseName,
  work: (subject: Subject) => Promise<void>,
): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-bench-"));
  const password = await initConfiguration(join(dir, "config"));
  await writeFile(join(dir, "config", "bench.yaml"), COLLECTION);
  const opened: { remove(): Promise<unknown> }[] = [];
  try {
    const storage = await openStorage(storageName, dir);
    opened.push(storage);
    const database = await openDatabase(databaseName, dir, storageName);
    opened.push(database);
    const delayFile = join(dir, "event-loop-delay");
    const probe = new URL("event-loop-probe.ts", import.meta.url).href;
    const authority = values.tls ? await Authority.make(dir, "authority") : undefined;
    const own = await authority?.issue("server");
    const tls = own === undefined ? [] : ["--tls-cert", own.certificate, "--tls-key", own.key];
    const server = await startServerProcess(["--config", join(dir, "config"), "--log-level", "warn", ...tls], {
      ...storage.env,
      ...database.env,
      NODE_OPTIONS: `--import=${probe}`,
      STRONGROOM_BENCH_EVENT_LOOP: delayFile,
    });
    opened.push({ remove: async () => await server.end("SIGTERM") });
    const ca = authority?.certificate;
    const line = delayMs > 0 ? await startProxy(server.url, delay(delayMs)) : undefined;
    if (line !== undefined) opened.push({ remove: () => line.close() });
    const url = line?.url ?? server.url;
    const sdk = new StrongroomClient({
      url: server.url,
      ...(ca === undefined ? {} : { tls: { ca: await readFile(ca) } }),
    });
    const { token } = await sdk.login({ username: "admin", password });
    sdk.close();
    const { pid } = server.child as { readonly pid: number };
    await work({ server, pid, url, token, ca, eventLoopDelay: () => eventLoopDelayOf(pid, delayFile) });
  } finally {
    for (const part of opened.reverse()) await part.remove();
    await rm(dir, { recursive: true, force: true });
  }
}

/** Asks the probe in a process for the event loop's delay, which it writes to the file. */
async function eventLoopDelayOf(pid: number, file: string): Promise<number> {
  await rm(file, { force: true });
  process.kill(pid, "SIGUSR2");
  for (;;) {
    const written = await readFile(file, "utf8").catch(() => "");
    if (written !== "") return Number(written);
    await sleep(10);
  }
}

const summaries: Summary[] = [];

function report(name: string, all: Figures[]): void {
  const summary = summaryOf(name, all);
  summaries.push(summary);
  console.log(rowOf(summary));
}

/** Measures one transfer over Node.js' own HTTP. */
type RawTransfer = (direction: RawClientTask["direction"], bytes: number) => Promise<Figures>;

async function withRawServer(task: RawServerTask, work: (transfer: RawTransfer) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-bench-"));
  const delayFile = join(dir, "event-loop-delay");
  const script = fileURLToPath(new URL("raw-server.ts", import.meta.url));
  const probe = fileURLToPath(new URL("event-loop-probe.ts", import.meta.url));
  const child = spawn(process.execPath, [`--import=${probe}`, script, JSON.stringify(task)], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, STRONGROOM_BENCH_EVENT_LOOP: delayFile },
  });
  endWithUs(child, "SIGKILL");
  try {
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    const port = Number(line.toString());
    const clientScript = fileURLToPath(new URL("raw-client.ts", import.meta.url));
    const measured = { pid: child.pid!, eventLoopDelay: () => eventLoopDelayOf(child.pid!, delayFile) };
    await work(async (direction, bytes) => {
      const of: RawClientTask = { ...task, port, direction, bytes };
      return await measure(measured, () => clientProcess(clientScript, of, ""));
    });
  } finally {
    child.kill("SIGKILL");
    await rm(dir, { recursive: true, force: true });
  }
}

/** The SDK and Node.js' own HTTP, in turn, so that what else the machine does falls on all of them. */
async function compare(): Promise<void> {
  type Step = readonly [name: string, run: () => Promise<Figures>];
  const sdk = (subject: Subject, name: string, direction: Transfer["direction"]): Step => {
    const transfer = { direction, bytes: size, count: 1 };
    return [name, () => measure(subject, () => client(subject, transfer))];
  };
  const all = new Map<string, Figures[]>();
  await withServer("discarding memory", "PGlite", async (discarding) => {
    await withServer("memory", "PGlite", async (keeping) => {
      await client(keeping, { direction: "upload", bytes: size, count: 1 });
      await withRawServer({ protocol: "HTTP/2", digest: true }, async (http2) => {
        await withRawServer({ protocol: "HTTP/2", digest: false }, async (plainHttp2) => {
          await withRawServer({ protocol: "HTTP/1.1", digest: true }, async (http1) => {
            await withRawServer({ protocol: "HTTP/1.1", digest: false }, async (plainHttp1) => {
              const steps: readonly Step[] = [
                sdk(discarding, COMPARED.sdkUpload, "upload"),
                [COMPARED.rawHttp2Upload, () => http2("upload", size)],
                [COMPARED.rawHttp2PlainUpload, () => plainHttp2("upload", size)],
                [COMPARED.rawHttp1Upload, () => http1("upload", size)],
                [COMPARED.rawHttp1PlainUpload, () => plainHttp1("upload", size)],
                sdk(keeping, COMPARED.sdkDownload, "download"),
                [COMPARED.rawHttp2Download, () => http2("download", size)],
              ];
              // Once to warm up.
              for (const [, run] of steps) await run();
              for (let i = 0; i < runs; i++) {
                for (const [name, run] of steps) all.set(name, [...(all.get(name) ?? []), await run()]);
              }
            });
          });
        });
      });
    });
  });
  for (const [name, figures] of all) report(name, figures);
}

interface Case {
  readonly storage: StorageName;
  readonly database?: DatabaseName;
  readonly direction: "upload" | "download";
  readonly bytes: number;
  readonly count?: number;
}

const EMBEDDED: readonly Case[] = (["discarding memory", "memory", "directory"] as const).flatMap((storage): Case[] => [
  { storage, direction: "upload", bytes: size },
  ...(storage === "memory"
    ? []
    : ([
        { storage, direction: "upload", bytes: 256 * MIB },
        { storage, direction: "upload", bytes: 4096 * MIB },
        { storage, direction: "upload", bytes: 256 * MIB, count: 16 },
        { storage, direction: "upload", bytes: 64 * MIB, count: 64 },
      ] as const)),
  ...(storage === "discarding memory" ? [] : [{ storage, direction: "download", bytes: size } as const]),
]);

const SERVERS: readonly Case[] = [
  { storage: "discarding memory", database: "PostgreSQL", direction: "upload", bytes: size },
  { storage: "discarding memory", database: "PostgreSQL", direction: "upload", bytes: 64 * MIB, count: 64 },
  ...S3_PEERS.flatMap((storage): Case[] => [
    { storage, database: "PostgreSQL", direction: "upload", bytes: size },
    { storage, database: "PostgreSQL", direction: "upload", bytes: 4096 * MIB },
    { storage, database: "PostgreSQL", direction: "upload", bytes: 256 * MIB, count: 16 },
    { storage, database: "PostgreSQL", direction: "upload", bytes: 64 * MIB, count: 64 },
    { storage, database: "PostgreSQL", direction: "download", bytes: size },
  ]),
];

function nameOf({ storage, database = "PGlite", direction, bytes, count = 1 }: Case): string {
  const amount = bytes % (1024 * MIB) === 0 ? `${bytes / MIB / 1024} GiB` : `${bytes / MIB} MiB`;
  return `${count === 1 ? direction : `${count} ${direction}s`} of ${amount}, ${database}, ${storage}`;
}

console.log(
  `Node ${process.version}, ${cpus().length} cores shared by server and client, ` +
    `${Math.round(totalmem() / MIB / 1024)} GiB, ` +
    `loopback${delayMs > 0 ? ` with a round trip of ${delayMs} ms` : ""}; median of ${runs} (min - max)\n`,
);
console.log(TABLE_HEAD);
// A line with delay stands between the SDK and its server only, and raw HTTP here is without certificates.
if (delayMs === 0 && !values.tls && (values.only === "" || "compared".includes(values.only))) await compare();
for (const each of values.quick ? [] : [...EMBEDDED, ...SERVERS]) {
  const name = nameOf(each);
  if (!name.includes(values.only)) continue;
  await withServer(each.storage, each.database ?? "PGlite", async (subject) => {
    const { direction, bytes, count = 1 } = each;
    // Once to warm up; a download also needs something to download.
    const first = direction === "download" ? bytes : 256 * MIB;
    await client(subject, { direction: "upload", bytes: first, count: 1 });
    const all: Figures[] = [];
    for (let i = 0; i < runs; i++) {
      all.push(await measure(subject, () => client(subject, { direction, bytes, count })));
    }
    report(name, all);
  });
}

const ratios = ratiosOf(summaries);
console.log(`\nratios ${JSON.stringify(ratios)}`);
if (values.json !== undefined) {
  const machine = { node: process.version, cores: cpus().length, memoryBytes: totalmem() };
  await writeFile(
    values.json,
    `${JSON.stringify({ machine, mib: size / MIB, delayMs, cases: summaries, ratios }, null, 2)}\n`,
  );
}
