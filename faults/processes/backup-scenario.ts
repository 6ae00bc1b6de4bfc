import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { findPeer } from "@strongroom/testkit/peers/programs";
import { cleanEnvironment, endWithUs, run, type ServerProcess, STRONGROOM } from "@strongroom/testkit/processes";
import type { Random } from "@strongroom/testkit/random";
import { inspect } from "./inspect.ts";
import { BREAKING, LINE_FAULTS, type LineFault, NOWHERE, type RoughLines } from "./rough-lines.ts";
import { type CommitStep, OUTAGES, SETUPS, type Setup } from "./setups.ts";

const MIB = 1024 * 1024;
const COLLECTION = "faults";
/** Versions that the collection keeps. */
const KEPT = 3;
/** Segments under way at once, as the CLI does by default. */
const PARALLEL = 2;
/** What HTTP/2 and messages add, as a part of the bytes, and for calls besides, in bytes. */
const OVERHEAD = { part: 0.02, calls: MIB };

/** Faults that every set-up meets. */
export const PROCESS_FAULTS = [...LINE_FAULTS, "server killed", "server stopped", "client killed"] as const;

/** Name of the fault that kills a server at a moment of its commit. */
export const killedAt = (step: CommitStep): string => `server killed in commit, ${step}`;

/** A version that was acknowledged and must be there. */
interface Live {
  readonly number: number;
  readonly digest: string;
}

/** Where scenarios play, one after the other. */
export interface Place {
  readonly dir: string;
  readonly data: string;
  readonly setup: Setup;
  readonly lines: RoughLines;
  readonly env: Readonly<Record<string, string>>;
  /** Newest first. */
  live: Live[];
  readonly digestOf: (bytes: Uint8Array) => string;
}

/** How a scenario went. */
export interface ProcessResult {
  readonly wrong: string[];
  readonly fired: string[];
  readonly ending: string;
  /** Bytes sent more than once, for each connection that was broken. */
  readonly resentPerBreak: number[];
  /**
   * From the moment a new server listened (of replicas: the other one was asked to end) to the first bytes through it,
   * in milliseconds.
   */
  readonly goneOnMs: number[];
  readonly underWay: number;
  readonly log: string;
}

/**
 * The number chooses the first kind of fault. One backup of a pipe while everything around it breaks, then a look at
 * what is left.
 */
export async function playProcesses(place: Place, random: Random, number: number): Promise<ProcessResult> {
  const { lines, setup } = place;
  const underWay = PARALLEL * setup.segmentSize;
  const file = join(place.dir, "message.gpg");
  const message =
    // Without gpg it fails where CI=true, so that nobody takes it for gpg's.
    number % 30 === 0 && (findPeer("gpg") !== undefined || process.env.CI === "true")
      ? await realMessage(place.dir, 300 * MIB)
      : openpgpMessage(number % 30 === 0 ? 300 * MIB : random.int(16 * MIB, 40 * MIB));
  const size = message.length;
  await writeFile(file, message);
  const servers: (ServerProcess | undefined)[] = [];
  const start = async (at: number) => {
    const server = await setup.start();
    servers[at] = server;
    lines.targets[at] = server.url;
  };
  let logs = "";
  lines.reset();
  for (let at = 0; at < setup.replicas; at++) await start(at);
  const result: ProcessResult = {
    wrong: [],
    fired: [],
    ending: "",
    resentPerBreak: [],
    goneOnMs: [],
    underWay,
    log: "",
  };

  let changing: Promise<void> = Promise.resolve();
  let breaks = 0;
  /** Measures from now until bytes flow, to any address or to any but one. */
  const goesOn = (except?: number) => {
    const since = performance.now();
    lines.after(256 * 1024, () => result.goneOnMs.push(performance.now() - since), except);
  };
  const end = async (at: number, signal: "SIGKILL" | "SIGTERM") => {
    const server = servers[at];
    if (server === undefined) return;
    servers[at] = undefined;
    const code = await server.end(signal);
    if (signal === "SIGTERM" && code !== 0) result.wrong.push(`SIGTERM ended the server with ${code}`);
    logs += server.log();
  };
  const replace = async (signal: "SIGKILL" | "SIGTERM", bytesFollow = true) => {
    const at = lines.last;
    if (setup.replicas === 1) {
      await end(at, signal);
      await start(at);
      if (bytesFollow) goesOn();
      return;
    }
    // The other one must finish what this one began, so this one stays away.
    for (let i = 0; i < setup.replicas; i++) if (i !== at && servers[i] === undefined) await start(i);
    if (bytesFollow) goesOn(at);
    await end(at, signal);
    lines.targets[at] = NOWHERE;
  };
  const child = spawn(STRONGROOM, ["backup", COLLECTION, "--encryption", "none"], {
    env: { ...cleanEnvironment(), ...place.env },
    stdio: ["pipe", "ignore", "pipe"],
  });
  endWithUs(child, "SIGTERM");
  const kinds: readonly string[] = [...PROCESS_FAULTS, ...Object.keys(setup.faults)];
  const planned = [
    kinds[number % kinds.length]!,
    ...Array.from({ length: random.int(0, 2) }, () => random.pick(kinds.filter((k) => k !== "client killed"))),
  ];
  // Too rare when only drawn: every second scenario that has a database and a store beside the server loses one of
  // them, in turn.
  const outages = OUTAGES.filter((kind) => kind in setup.faults);
  const turn = Math.floor(number / SETUPS.length);
  if (outages.length > 0 && turn % 2 === 0) planned.push(outages[(turn >> 1) % outages.length]!);
  for (const kind of planned) {
    lines.after(Math.floor(size * (0.05 + 0.85 * random.next())), () => {
      result.fired.push(kind);
      if (BREAKING.has(kind) || kind.startsWith("server")) breaks++;
      if ((LINE_FAULTS as readonly string[]).includes(kind)) lines.strike(kind as LineFault);
      else if (kind === "client killed") child.kill("SIGKILL");
      else {
        const change =
          kind === "server killed"
            ? () => replace("SIGKILL")
            : kind === "server stopped"
              ? () => replace("SIGTERM")
              : setup.faults[kind]!;
        changing = changing.then(change).catch((error) => void result.wrong.push(`${kind}: ${error}`));
      }
    });
  }
  // In the other turns the server that commits is killed in the middle of it.
  let disarm = () => {};
  if (turn % 2 === 1) {
    const step = setup.commitSteps[((turn >> 1) + number) % setup.commitSteps.length]!;
    lines.after(size, () => {
      disarm = setup.atCommit(step, () => {
        result.fired.push(killedAt(step));
        breaks++;
        const kill = async () => await replace("SIGKILL", false);
        changing = changing.then(kill).catch((error) => void result.wrong.push(`${killedAt(step)}: ${error}`));
      });
    });
  }
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk;
  });
  child.stdin.on("error", () => {});
  createReadStream(file, { highWaterMark: MIB }).pipe(child.stdin);
  const [code] = (await once(child, "close")) as [number | null];
  disarm();
  await changing;
  const sent = lines.up();
  const ending = code === 0 ? "whole" : code === null ? "client killed" : `clear error ${code}`;
  const unclear = code !== null && code !== 0 && !/strongroom/.test(said);
  if (unclear) result.wrong.push(`exit code ${code} without a word`);
  if (code === 1) result.wrong.push(`an error nobody foresaw: ${said}`);

  // While database or store are away every try costs its bytes, and how many there are is a matter of time.
  if (code === 0 && breaks > 0 && !result.fired.some((kind) => kind in setup.faults)) {
    const again = Math.max(0, sent - size - size * OVERHEAD.part - OVERHEAD.calls);
    result.resentPerBreak.push(again / breaks);
    if (again > breaks * underWay) result.wrong.push(`${again} bytes were sent again for ${breaks} broken connections`);
  }
  await checkVersions(place, result, { code, digest: place.digestOf(message) }, random);
  await changing;
  for (let at = 0; at < setup.replicas; at++) await end(at, "SIGTERM");
  result.wrong.push(...(await inspect(setup, place.data, COLLECTION)));
  await rm(file);
  return { ...result, ending, log: `${said}\n${logs}` };
}

/** Ciphertext that gpg made from random bytes, about `size` of them. */
async function realMessage(dir: string, size: number): Promise<Uint8Array> {
  const home = join(dir, "gnupg");
  await mkdir(home, { mode: 0o700 });
  const plain = join(dir, "plain");
  await writeFile(plain, randomBytes(size));
  await writeFile(join(dir, "passphrase"), "of the fault suite");
  const args = ["--homedir", home, "--batch", "--pinentry-mode", "loopback", "--compress-algo", "none"];
  args.push("--passphrase-file", join(dir, "passphrase"), "--symmetric", "--output", `${plain}.gpg`, plain);
  const made = await run("gpg", args);
  if (made.code !== 0) throw new Error(`gpg: ${made.stderr}`);
  const message = await readFile(`${plain}.gpg`);
  for (const path of [plain, `${plain}.gpg`, home]) await rm(path, { recursive: true, force: true });
  return message;
}

/** What is listed is what was acknowledged, and what is fetched are the bytes that were sent. */
async function checkVersions(
  place: Place,
  { wrong }: ProcessResult,
  sent: { code: number | null; digest: string },
  random: Random,
): Promise<void> {
  place.lines.reset();
  const call = async (args: string[]) => await run(STRONGROOM, args, { env: place.env, cwd: place.dir });
  const listed = await call(["ls", COLLECTION, "--json"]);
  if (listed.code !== 0) {
    wrong.push(`ls: ${listed.stderr}`);
    return;
  }
  const { versions } = JSON.parse(listed.stdout.toString()) as { versions: { version: number }[] };
  const numbers = versions.map(({ version }) => version);
  const known = place.live.map(({ number }) => number);
  const [newest] = numbers;
  if (newest !== undefined && newest > (known[0] ?? 0))
    place.live = [{ number: newest, digest: sent.digest }, ...place.live].slice(0, KEPT);
  else if (sent.code === 0) wrong.push("an acknowledged version is not listed");
  // Without an answer a version may be there or not; after an error it must not.
  if (sent.code !== 0 && sent.code !== null && place.live[0]?.number !== known[0])
    wrong.push(`a failed backup left version ${newest}`);
  if (numbers.join() !== place.live.map(({ number }) => number).join())
    wrong.push(`${numbers} are listed, ${place.live.map((v) => v.number)} are acknowledged`);
  const checked = new Set([place.live[0], random.chance(0.3) ? place.live.at(-1) : undefined]);
  for (const version of checked) {
    if (version === undefined) continue;
    const target = join(place.dir, "fetched.gpg");
    const fetched = await call([
      "download",
      COLLECTION,
      "--version",
      String(version.number),
      "--output",
      target,
      "--force",
    ]);
    if (fetched.code !== 0) wrong.push(`download: ${fetched.stderr}`);
    else if (place.digestOf(await readFile(target)) !== version.digest)
      wrong.push(`version ${version.number} comes back with other bytes`);
    await rm(target, { force: true });
  }
}
