/** The fault suite: `npm run test:faults -- --help`. */
import { parseArgs } from "node:util";
import { cutPower } from "./power/power.ts";
import { runProcesses } from "./processes/processes.ts";
import { Report } from "./report.ts";
import { simulate } from "./simulation/simulation.ts";

const HELP = `Usage: npm run test:faults -- [options]

  --scenarios <count>   simulated scenarios (default 500)
  --processes <count>   scenarios with real processes (default 30)
  --power <count>       power cuts under the embedded database (default 60)
  --seed <text>         seed of all; the same seed plays the same scenarios (default 1)
  --from <number>       number of the first scenario (default 0)
  --only <part>         simulation, processes or power; --scenarios then counts that part

One scenario alone (--scenarios 1 or --processes 1) shows its steps when it fails, and a power cut keeps what the disk
held.
`;

const { values } = parseArgs({
  options: {
    scenarios: { type: "string" },
    processes: { type: "string" },
    power: { type: "string" },
    seed: { type: "string", default: "1" },
    from: { type: "string", default: "0" },
    only: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const PARTS = ["simulation", "processes", "power"] as const;
const whole = (name: "scenarios" | "processes" | "power" | "from", byDefault: number): number => {
  const number = Number(values[name] ?? byDefault);
  if (!Number.isSafeInteger(number) || number < 0)
    throw new Error(`--${name}: expected a whole number, got ${values[name]}`);
  return number;
};

if (values.help) {
  process.stdout.write(HELP);
} else if (values.only !== undefined && !PARTS.some((part) => part === values.only)) {
  process.stderr.write(`--only: expected ${PARTS.join(", ")}, got ${values.only}\n`);
  process.exitCode = 2;
} else if (!/^[0-9a-z]{1,20}$/.test(values.seed)) {
  process.stderr.write(`--seed: expected up to 20 letters and digits, got ${values.seed}\n`);
  process.exitCode = 2;
} else {
  const report = new Report();
  const { seed, only } = values;
  const from = whole("from", 0);
  const alone = only === undefined ? undefined : values.scenarios;
  const plays = (part: (typeof PARTS)[number]) => only === undefined || only === part;
  if (plays("simulation")) await simulate(report, seed, from, whole("scenarios", 500));
  if (plays("processes")) await runProcesses(report, seed, from, Number(alone ?? whole("processes", 30)));
  if (plays("power")) await cutPower(report, seed, from, Number(alone ?? whole("power", 60)));
  report.say(`${report.passed} scenarios passed, ${report.failed} failed`);
  // Left to itself, Node.js (24.21) spins for ever here, in the clean-up of its own handles (seen in
  // Environment::CleanupHandles). Standard output is written by now: to files and pipes it is synchronous.
  process.exit(report.failed === 0 ? 0 : 1);
}
