/** Looks without a pause, in a thread of its own, since the moment lasts some milliseconds only. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";

const { folder, ending, state } = workerData as { folder: string; ending: string; state: Int32Array };

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

const moving = () =>
  entries(folder).flatMap((key) => entries(join(folder, key)).filter((name) => name.endsWith(ending)));

parentPort!.postMessage("ready");
for (;;) {
  // The pid, once it is armed.
  Atomics.wait(state, 0, 0);
  const before = new Set(moving());
  let isFound = false;
  while (!isFound && Atomics.load(state, 0) !== 0) isFound = moving().some((name) => !before.has(name));
  const pid = Atomics.exchange(state, 0, 0);
  if (isFound && pid !== 0) process.kill(pid, "SIGKILL");
  parentPort!.postMessage(isFound && pid !== 0 ? "killed" : "taken back");
}
