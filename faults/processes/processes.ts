import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run, STRONGROOM } from "../../demo/processes.ts";
import { temporaryRoot } from "../place.ts";
import { Random } from "../random.ts";
import type { Report } from "../report.ts";
import { type Place, PROCESS_FAULTS, playProcesses } from "./backup-scenario.ts";
import { RoughProxy } from "./rough-proxy.ts";
import { SETUPS } from "./setups.ts";

/** Segments are this large, so that many are sent in a short time. */
const SEGMENT_SIZE = "4M";

const CONFIGURATION = `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: { name: faults }
spec: { maxBackupsCount: 3, maxOneVersionSize: 512M, maxCollectionSize: 2G, maxParallelUploads: 1 }
`;

/** Plays `count` scenarios with real processes, dealt out to the set-ups in turn, beginning with number `from`. */
export async function runProcesses(report: Report, seed: string, from: number, count: number): Promise<void> {
  const began = performance.now();
  const counts = new Map<string, number>(PROCESS_FAULTS.map((kind) => [kind, 0]));
  const resent: number[] = [];
  const goneOn: number[] = [];
  const endings = new Map<string, number>();
  let most = 0;
  for (const factory of SETUPS) {
    const place = await makePlace(factory);
    if (place === undefined) continue;
    try {
      for (let number = from; number < from + count; number++) {
        if (number % SETUPS.length !== SETUPS.indexOf(factory)) continue;
        const result = await playProcesses(place, new Random(`processes-${seed}-${number}`), number);
        report.count(result.wrong.length === 0);
        for (const kind of result.fired) counts.set(kind, (counts.get(kind) ?? 0) + 1);
        resent.push(...result.resentPerBreak);
        goneOn.push(...result.goneOnMs);
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
  }
  const seconds = Math.round((performance.now() - began) / 1000);
  const list = [...endings].map(([ending, times]) => `${times} ${ending}`).join(", ");
  report.say(`processes: ${count} scenarios of seed ${seed} (${list}), ${seconds} s`);
  for (const [kind, times] of counts) report.say(`  ${String(times).padStart(7)}  ${kind}`);
  const mib = (bytes: number) => (bytes / 1024 / 1024).toFixed(1);
  if (resent.length > 0) {
    report.say(
      `  sent again per broken connection: ${mib(Math.max(...resent))} MiB at most, ${mib(resent.reduce((a, b) => a + b) / resent.length)} on average; segments under way are ${mib(most)} MiB`,
    );
  }
  if (goneOn.length > 0) {
    const sorted = goneOn.toSorted((a, b) => a - b);
    report.say(
      `  until bytes flow again after the server listens: ${Math.round(sorted[sorted.length >> 1]!)} ms (median), ${Math.round(sorted.at(-1)!)} ms at most, of ${sorted.length}`,
    );
  }
  const silent = [...counts].filter(([, times]) => times === 0).map(([kind]) => kind);
  if (count >= 20)
    report.check(
      silent.length === 0,
      `every kind of fault fired${silent.length > 0 ? `, but for: ${silent.join(", ")}` : ""}`,
    );
}

/** A directory with a configuration, a session through the proxy, and a set-up. */
async function makePlace(factory: (typeof SETUPS)[number]): Promise<(Place & { close(): Promise<void> }) | undefined> {
  const dir = await mkdtemp(join(temporaryRoot(), "strongroom-faults-"));
  const data = join(dir, "data");
  const init = await run(STRONGROOM, ["init", join(data, "config")]);
  const password = /password\s+(\S+)/.exec(init.stdout.toString())![1]!;
  await writeFile(join(data, "config", "faults.yaml"), CONFIGURATION);
  const setup = await factory(data, ["--segment-size", SEGMENT_SIZE, "--sweep-interval", "1s"]);
  if (setup === undefined) {
    await rm(dir, { recursive: true, force: true });
    return undefined;
  }
  const proxy = await RoughProxy.start();
  const server = await setup.start();
  proxy.target = new URL(server.url);
  const env = { HOME: dir, XDG_CONFIG_HOME: dir, STRONGROOM_URL: proxy.url };
  const login = await run(STRONGROOM, ["login", "--username", "admin", "--password-stdin"], { input: password, env });
  if (login.code !== 0) throw new Error(login.stderr);
  await server.end("SIGTERM");
  return {
    dir,
    data,
    setup,
    proxy,
    env,
    live: [],
    digestOf: (bytes) => createHash("sha256").update(bytes).digest("hex"),
    async close() {
      await proxy.close();
      await setup.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
