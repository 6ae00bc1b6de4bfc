/** The fault suite: `npm run test:faults -- --help`. */
import { parseArgs } from "node:util";
import { runProcesses } from "./processes/processes.ts";
import { Report } from "./report.ts";
import { simulate } from "./simulation/simulation.ts";

const HELP = `Usage: npm run test:faults -- [options]

  --scenarios <count>   simulated scenarios (default 500)
  --processes <count>   scenarios with real processes (default 30)
  --seed <text>         seed of both (default 1); the same seed plays the same scenarios
  --from <number>       number of the first scenario (default 0)
  --only <half>         simulation or processes

One scenario alone (--scenarios 1 or --processes 1) shows its steps when it fails.
`;

const { values } = parseArgs({
  options: {
    scenarios: { type: "string", default: "500" },
    processes: { type: "string", default: "30" },
    seed: { type: "string", default: "1" },
    from: { type: "string", default: "0" },
    only: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const whole = (name: "scenarios" | "processes" | "from"): number => {
  const number = Number(values[name]);
  if (!Number.isSafeInteger(number) || number < 0)
    throw new Error(`--${name}: expected a whole number, came ${values[name]}`);
  return number;
};

if (values.help) {
  process.stdout.write(HELP);
} else if (!["simulation", "processes", undefined].includes(values.only)) {
  process.stderr.write(`--only: expected simulation or processes, came ${values.only}\n`);
  process.exitCode = 2;
} else if (!/^[0-9a-z]{1,20}$/.test(values.seed)) {
  process.stderr.write(`--seed: expected up to 20 letters and digits, came ${values.seed}\n`);
  process.exitCode = 2;
} else {
  const report = new Report();
  if (values.only !== "processes") await simulate(report, values.seed, whole("from"), whole("scenarios"));
  if (values.only !== "simulation") await runProcesses(report, values.seed, whole("from"), whole("processes"));
  report.say(`${report.passed} scenarios passed, ${report.failed} failed`);
  process.exitCode = report.failed === 0 ? 0 : 1;
}
