/**
 * Loaded into the server by the benchmark (`--import`): at SIGUSR2 it writes the event loop's delay since the last
 * time, 99th percentile in milliseconds, to the file that STRONGROOM_BENCH_EVENT_LOOP names, and begins again.
 */
import { writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";

const file = process.env.STRONGROOM_BENCH_EVENT_LOOP;
if (file !== undefined) {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  process.on("SIGUSR2", () => {
    writeFileSync(file, String(delay.percentile(99) / 1e6));
    delay.reset();
  });
}
