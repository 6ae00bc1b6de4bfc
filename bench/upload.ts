/**
 * `npm run bench`: throughput, CPU and memory of uploads and downloads through the SDK, on loopback, server and client in processes of their own.
 * Linux only, since CPU and memory of the server are read from /proc. Options: `--runs N` (3), `--mib N` (2048), `--only TEXT`, and `--storage URL`:
 * uploads to that store instead of the usual cases, below a new prefix each time. Credentials come from the environment; what is stored stays there.
 */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { StrongroomClient } from "@strongroom/client-sdk";
import { run, type ServerProcess, STRONGROOM, startServerProcess } from "../demo/processes.ts";

const MIB = 1024 * 1024;
const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "3" },
    mib: { type: "string", default: "2048" },
    only: { type: "string", default: "" },
    storage: { type: "string" },
  },
});
const runs = Number(values.runs);
const size = Number(values.mib) * MIB;

interface ClientFigures {
  bytes: number;
  seconds: number;
  cpuSeconds: number;
  rssMiB: number;
}

interface Figures extends ClientFigures {
  serverCpuSeconds: number;
  serverRssMiB: number;
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

async function client(url: string, token: string, ...args: string[]): Promise<ClientFigures> {
  const script = fileURLToPath(new URL("client.ts", import.meta.url));
  const [direction = "", ...rest] = args;
  const child = spawn(process.execPath, [script, direction, url, ...rest], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(token);
  return JSON.parse(await text(child.stdout)) as ClientFigures;
}

async function measure(server: ServerProcess, token: string, args: string[]): Promise<Figures> {
  const pid = server.child.pid!;
  await writeFile(`/proc/${pid}/clear_refs`, "5");
  const before = await cpuSecondsOf(pid);
  const figures = await client(server.url, token, ...args);
  return { ...figures, serverCpuSeconds: (await cpuSecondsOf(pid)) - before, serverRssMiB: await peakRssOf(pid) };
}

const collection = (name: string) => `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: { name: ${name} }
spec: { maxBackupsCount: 1, maxOneVersionSize: 8G, maxCollectionSize: 400G, maxParallelUploads: 64 }
`;

async function withServer(
  storage: string,
  work: (server: ServerProcess, token: string) => Promise<void>,
): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-bench-"));
  const init = await run(STRONGROOM, ["init", join(dir, "config")]);
  const password = /password\s+(\S+)/.exec(init.stdout.toString())![1]!;
  await mkdir(join(dir, "config"), { recursive: true });
  await writeFile(join(dir, "config", "bench.yaml"), collection("bench"));
  const database = storage.startsWith("mem:") ? "pglite:memory" : `pglite:${join(dir, "database")}`;
  const args = ["--config", join(dir, "config"), "--database", database, "--log-level", "warn"];
  const server = await startServerProcess([...args, "--storage", storage.replace("DIR", dir)]);
  try {
    const sdk = new StrongroomClient({ url: server.url });
    const { token } = await sdk.login({ username: "admin", password });
    sdk.close();
    await work(server, token);
  } finally {
    await server.end("SIGTERM");
    await rm(dir, { recursive: true, force: true });
  }
}

function report(name: string, all: Figures[]): void {
  const sorted = (pick: (f: Figures) => number) => all.map(pick).sort((a, b) => a - b);
  const median = (pick: (f: Figures) => number) => sorted(pick)[Math.floor(all.length / 2)]!;
  const rates = sorted((f) => f.bytes / MIB / f.seconds);
  const perGiB = (cpu: (f: Figures) => number) => median((f) => cpu(f) / (f.bytes / MIB / 1024)).toFixed(2);
  const row = [
    name.padEnd(40),
    `${median((f) => f.bytes / MIB / f.seconds).toFixed(0)} (${rates[0]!.toFixed(0)} - ${rates.at(-1)!.toFixed(0)})`,
    perGiB((f) => f.serverCpuSeconds),
    perGiB((f) => f.cpuSeconds),
    median((f) => f.serverRssMiB).toFixed(0),
    median((f) => f.rssMiB).toFixed(0),
  ];
  console.log(`| ${row.join(" | ")} |`);
}

interface Case {
  name: string;
  storage: string;
  direction: "upload" | "download";
  bytes: number;
  count: number;
}

/** A storage URL with a prefix of its own, since every run has a new database. */
function fresh(url: string): string {
  const [place = "", query = ""] = url.split("?");
  return `${place.replace(/\/$/, "")}/bench-${randomUUID()}?${query}`;
}

function casesOf(storage: string): Case[] {
  return [
    { name: "upload, given store", storage, direction: "upload", bytes: size, count: 1 },
    { name: "16 uploads, given store", storage, direction: "upload", bytes: size / 16, count: 16 },
    { name: "download, given store", storage, direction: "download", bytes: size, count: 1 },
  ];
}

const CASES: readonly Case[] = [
  { name: "upload, discarding store", storage: "mem://discard", direction: "upload", bytes: size, count: 1 },
  { name: "upload, memory store", storage: "mem://", direction: "upload", bytes: size, count: 1 },
  { name: "upload, directory store", storage: "file://DIR/storage", direction: "upload", bytes: size, count: 1 },
  { name: "download, memory store", storage: "mem://", direction: "download", bytes: size, count: 1 },
  { name: "download, directory store", storage: "file://DIR/storage", direction: "download", bytes: size, count: 1 },
  {
    name: "upload of 256 MiB, discarding store",
    storage: "mem://discard",
    direction: "upload",
    bytes: 256 * MIB,
    count: 1,
  },
  {
    name: "upload of 4 GiB, discarding store",
    storage: "mem://discard",
    direction: "upload",
    bytes: 4096 * MIB,
    count: 1,
  },
  {
    name: "16 uploads of 256 MiB, discarding store",
    storage: "mem://discard",
    direction: "upload",
    bytes: 256 * MIB,
    count: 16,
  },
  {
    name: "upload of 256 MiB, directory store",
    storage: "file://DIR/storage",
    direction: "upload",
    bytes: 256 * MIB,
    count: 1,
  },
  {
    name: "upload of 4 GiB, directory store",
    storage: "file://DIR/storage",
    direction: "upload",
    bytes: 4096 * MIB,
    count: 1,
  },
  {
    name: "16 uploads of 256 MiB, directory store",
    storage: "file://DIR/storage",
    direction: "upload",
    bytes: 256 * MIB,
    count: 16,
  },
];

console.log(
  `Node ${process.version}, ${cpus().length} cores shared by server and client, ${Math.round(totalmem() / MIB / 1024)} GiB, loopback; median of ${runs} (min - max)\n`,
);
console.log("| case | MiB/s | server CPU-s/GiB | client CPU-s/GiB | server peak RSS MiB | client peak RSS MiB |");
console.log("| --- | --- | --- | --- | --- | --- |");
for (const { name, storage, direction, bytes, count } of values.storage === undefined
  ? CASES
  : casesOf(values.storage)) {
  if (!name.includes(values.only)) continue;
  await withServer(values.storage === undefined ? storage : fresh(storage), async (server, token) => {
    const args = [direction, "bench", String(bytes), String(count)];
    // Once to warm up; a download also needs something to download.
    await client(server.url, token, "upload", "bench", String(direction === "download" ? bytes : 256 * MIB), "1");
    const all: Figures[] = [];
    for (let i = 0; i < runs; i++) all.push(await measure(server, token, args));
    report(name, all);
  });
}
