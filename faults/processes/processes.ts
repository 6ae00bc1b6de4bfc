import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { collectionDocument, initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, STRONGROOM } from "@strongroom/testkit/processes";
import { Random } from "@strongroom/testkit/random";
import { temporaryRoot } from "../place.ts";
import type { Report } from "../report.ts";
import { killedAt, type Place, PROCESS_FAULTS, playProcesses } from "./backup-scenario.ts";
import { RoughLines } from "./rough-lines.ts";
import { missingPeers, SETUPS, type SetupFactory } from "./setups.ts";

/** Set-ups that play at the same time; scenarios of one play one after the other. */
const AT_ONCE = 2;

const CONFIGURATION = collectionDocument(
  "faults",
  "maxBackupsCount: 3, maxOneVersionSize: 512M, maxCollectionSize: 2G, maxParallelUploads: 1",
);

/** Plays `count` scenarios with real processes, dealt out to the set-ups in turn, beginning with number `from`. */
export async function runProcesses(report: Report, seed: string, from: number, count: number): Promise<void> {
  const began = performance.now();
  const counts = new Map<string, number>(PROCESS_FAULTS.map((kind) => [kind, 0]));
  const resent: number[] = [];
  const goneOn: number[] = [];
  const takenOver: number[] = [];
  const endings = new Map<string, number>();
  let most = 0;
  let played = 0;
  const perSetup = new Map<string, number>();
  const play = async (factory: SetupFactory) => {
    const mine = Array.from({ length: count }, (_, i) => from + i).filter(
      (number) => number % SETUPS.length === SETUPS.indexOf(factory),
    );
    if (mine.length === 0) return;
    const missing = missingPeers(factory);
    if (missing.length > 0) {
      const what =
        `SKIPPED: ${mine.length} scenarios on ${factory.name}: ${missing.join(", ")} not installed; run ` +
        "peers/install.sh";
      if (process.env.CI === "true") report.fail(what);
      else report.say(`!!! ${what}`);
      return;
    }
    const place = await makePlace(factory);
    for (const kind of [...Object.keys(place.setup.faults), ...place.setup.commitSteps.map(killedAt)])
      if (!counts.has(kind)) counts.set(kind, 0);
    try {
      for (const number of mine) {
        const result = await playProcesses(place, new Random(`processes-${seed}-${number}`), number);
        played++;
        perSetup.set(factory.name, (perSetup.get(factory.name) ?? 0) + 1);
        report.count(result.wrong.length === 0);
        for (const kind of result.fired) counts.set(kind, (counts.get(kind) ?? 0) + 1);
        resent.push(...result.resentPerBreak);
        (place.setup.replicas > 1 ? takenOver : goneOn).push(...result.goneOnMs);
        most = Math.max(most, result.underWay);
        endings.set(result.ending, (endings.get(result.ending) ?? 0) + 1);
        if (result.wrong.length === 0 && count > 1) continue;
        const how = `scenario ${number} on ${place.setup.name} (${result.fired.join(", ")}; ${result.ending})`;
        report.say(`${result.wrong.length === 0 ? "ok" : "FAILED"} ${how}: ${result.wrong.join("; ")}`);
        if (count > 1)
          report.say(
            `  repeat it: npm run test:faults -- --only processes --seed ${seed} --from ${number} --processes 1`,
          );
        else report.say(result.log);
      }
    } finally {
      await place.close();
    }
  };
  const waiting = [...SETUPS];
  const lane = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { name } = next;
      // The other set-ups are to be played, and ended in order, all the same.
      await play(next).catch((error: Error) => report.fail(`the set-up ${name} broke: ${error.stack}`));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  const seconds = Math.round((performance.now() - began) / 1000);
  const list = [...endings].map(([ending, times]) => `${times} ${ending}`).join(", ");
  report.say(`processes: ${played} scenarios of seed ${seed} (${list}), ${seconds} s`);
  for (const [kind, times] of counts) report.say(`  ${String(times).padStart(7)}  ${kind}`);
  for (const [name, times] of perSetup) report.say(`  ${String(times).padStart(7)}  scenarios on ${name}`);
  const mib = (bytes: number) => (bytes / 1024 / 1024).toFixed(1);
  if (resent.length > 0) {
    report.say(
      `  sent again per broken connection: ${mib(Math.max(...resent))} MiB at most, ` +
        `${mib(resent.reduce((a, b) => a + b) / resent.length)} on average; segments under way are ${mib(most)} ` +
        "MiB",
    );
  }
  for (const [what, times] of [
    ["after a server that started again listens", goneOn],
    ["to another replica after one was killed or asked to stop", takenOver],
  ] as const) {
    if (times.length === 0) continue;
    const sorted = times.toSorted((a, b) => a - b);
    report.say(
      `  until bytes flow ${what}: ${Math.round(sorted[sorted.length >> 1]!)} ms (median), ` +
        `${Math.round(sorted.at(-1)!)} ms at most, of ${sorted.length}`,
    );
  }
  const silent = [...counts].filter(([, times]) => times === 0).map(([kind]) => kind);
  if (played >= 20)
    report.check(
      silent.length === 0,
      `every kind of fault fired${silent.length > 0 ? `, but for: ${silent.join(", ")}` : ""}`,
    );
}

/** A directory with a configuration, a session through the proxy, and a set-up. */
async function makePlace(factory: SetupFactory): Promise<Place & { close(): Promise<void> }> {
  const dir = await mkdtemp(join(temporaryRoot(), "strongroom-faults-"));
  const data = join(dir, "data");
  const password = await initConfiguration(join(data, "config"));
  await writeFile(join(data, "config", "faults.yaml"), CONFIGURATION);
  const setup = await factory.make(data, ["--sweep-interval", "1s"]);
  const lines = await RoughLines.open(setup.replicas);
  const server = await setup.start();
  lines.targets[0] = server.url;
  const env = personEnvironment(dir, lines.url);
  const login = await run(STRONGROOM, LOGIN, { input: password, env });
  if (login.code !== 0) throw new Error(login.stderr);
  await server.end("SIGTERM");
  return {
    dir,
    data,
    setup,
    lines,
    env,
    live: [],
    digestOf: (bytes) => createHash("sha256").update(bytes).digest("hex"),
    async close() {
      await lines.close();
      await setup.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
