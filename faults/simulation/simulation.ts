import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Report } from "../report.ts";
import { FAULT_KINDS } from "./faults.ts";
import type { Line } from "./worker.ts";

const WORKER = fileURLToPath(new URL("worker.ts", import.meta.url));
/** Processes that play scenarios side by side. */
const WORKERS = 2;
/** Scenarios that are played twice, in two processes: they must go the same way. */
const REPEATED = 5;
/** Fewer scenarios cannot be expected to meet every kind of fault. */
const ENOUGH = 300;

/** Plays `count` scenarios of this seed, beginning with number `from`. */
export async function simulate(report: Report, seed: string, from: number, count: number): Promise<void> {
  const began = performance.now();
  const counts = new Map<string, number>(FAULT_KINDS.map((kind) => [kind, 0]));
  const traces = new Map<number, string>();
  const stores = new Map<string, number>();
  let versions = 0;
  const take = (line: Line) => {
    report.count(line.failure === undefined);
    traces.set(line.number, line.trace);
    stores.set(line.store, (stores.get(line.store) ?? 0) + 1);
    versions += line.versions;
    for (const [kind, times] of Object.entries(line.faults)) counts.set(kind, (counts.get(kind) ?? 0) + times);
    if (line.failure === undefined) return;
    report.say(`FAILED ${line.store} scenario ${line.number}: ${line.failure}`);
    if (count === 1) for (const step of line.steps) report.say(`  ${step}`);
    else
      report.say(
        `  repeat it: npm run test:faults -- --only simulation --seed ${seed} --from ${line.number} --scenarios 1`,
      );
  };
  const end = from + count;
  await Promise.all(Array.from({ length: WORKERS }, (_, i) => play(seed, from + i, WORKERS, end, take)));
  if (traces.size !== count) report.fail(`${count} scenarios were asked for, ${traces.size} were played`);
  await checkRepeatable(report, seed, from, Math.min(count, REPEATED), traces);

  const seconds = Math.round((performance.now() - began) / 1000);
  const kinds = [...stores].map(([store, times]) => `${times} on the ${store} store`).join(", ");
  report.say(
    `simulation: ${count} scenarios of seed ${seed} (${kinds}), ${versions} versions acknowledged, ${seconds} s`,
  );
  for (const [kind, times] of counts) report.say(`  ${String(times).padStart(7)}  ${kind}`);
  const silent = [...counts].filter(([, times]) => times === 0).map(([kind]) => kind);
  if (count >= ENOUGH)
    report.check(
      silent.length === 0,
      `every kind of fault fired${silent.length > 0 ? `, but for: ${silent.join(", ")}` : ""}`,
    );
}

/** The same seeds once more must give the same steps, or a failure could not be repeated. */
async function checkRepeatable(
  report: Report,
  seed: string,
  from: number,
  count: number,
  traces: ReadonlyMap<number, string>,
): Promise<void> {
  const differing: number[] = [];
  await play(seed, from, 1, from + count, ({ number, trace }) => {
    if (traces.get(number) !== trace) differing.push(number);
  });
  report.check(
    differing.length === 0,
    `scenarios played twice go the same way${differing.length > 0 ? `, but for ${differing}` : ""}`,
  );
}

async function play(seed: string, first: number, step: number, end: number, take: (line: Line) => void): Promise<void> {
  const child = spawn(process.execPath, [WORKER, seed, String(first), String(step), String(end)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  for await (const text of createInterface({ input: child.stdout })) take(JSON.parse(text) as Line);
  const code = await exited;
  if (code !== 0) throw new Error(`a worker ended with ${code}`);
}
