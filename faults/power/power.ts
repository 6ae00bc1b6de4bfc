import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Report } from "../report.ts";
import { LUCK } from "./disk.ts";
import { CUTS, type Line } from "./worker.ts";

const WORKER = fileURLToPath(new URL("worker.ts", import.meta.url));
/** Processes that cut side by side. */
const WORKERS = 2;
/** A worker that says nothing for so long hangs in a database, in milliseconds. */
const SILENCE_MS = 180_000;
/** Fewer cuts cannot be expected to meet everything. */
const ENOUGH = 100;

/** Cuts the power under the embedded database `count` times, beginning with number `from`. */
export async function cutPower(report: Report, seed: string, from: number, count: number): Promise<void> {
  const began = performance.now();
  const lines: Line[] = [];
  const take = (line: Line) => {
    lines.push(line);
    report.count(line.failure === undefined);
    if (line.failure === undefined) return;
    report.say(
      `FAILED power cut ${line.number} (${line.luck}, ${line.lost} of ${line.unsynced} lost): ${line.failure}`,
    );
    if (line.kept === undefined)
      report.say(`  repeat it: npm run test:faults -- --only power --seed ${seed} --from ${line.number} --scenarios 1`);
    else report.say(`  what the disk held: ${line.kept}`);
  };
  const first = Math.floor(from / CUTS);
  await Promise.all(
    Array.from({ length: WORKERS }, (_, i) => play([seed, first + i, WORKERS, from, from + count].map(String), take)),
  );
  if (lines.length !== count) report.fail(`${count} power cuts were asked for, ${lines.length} were played`);

  const sum = (value: (line: Line) => number) => lines.reduce((total, line) => total + value(line), 0);
  const seconds = Math.round((performance.now() - began) / 1000);
  report.say(
    `power: ${count} cuts of seed ${seed}, ${sum((line) => line.acknowledged)} commits acknowledged before ` +
      `them, ${sum((line) => line.lost)} of ${sum((line) => line.unsynced)} unsynced changes lost, ` +
      `${sum((line) => Number(line.twice))} cut again in the recovery, ${seconds} s`,
  );
  if (count < ENOUGH) return;
  const silent = LUCK.filter((luck) => !lines.some((line) => line.luck === luck));
  report.check(silent.length === 0, `every luck occurred${silent.length > 0 ? `, but for: ${silent.join(", ")}` : ""}`);
  report.check(sum((line) => line.lost) > 0, "some unsynced change was lost");
}

async function play(args: readonly string[], take: (line: Line) => void): Promise<void> {
  const child = spawn(process.execPath, [WORKER, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  let last = "none";
  const silence = setTimeout(() => child.kill("SIGKILL"), SILENCE_MS);
  for await (const text of createInterface({ input: child.stdout })) {
    silence.refresh();
    const line = JSON.parse(text) as Line;
    last = `${line.number}`;
    take(line);
  }
  clearTimeout(silence);
  const code = await exited;
  if (code !== 0) throw new Error(`a worker ended with ${code ?? "a signal"} after cut ${last}`);
}
