import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import type { ChangePlan, WantedChange } from "../../objects/plan-change.ts";
import { planDirectoryChange } from "./directory.ts";

/** What a planning thread is started with. */
interface PlanQuestion {
  readonly dir: string;
  readonly change: WantedChange;
}

/** A plan, or why there is none. */
type PlanAnswer = { readonly plan: ChangePlan } | { readonly failed: string };

/** A configuration that takes more, in MiB, ends the thread and not the server. */
const MAX_HEAP_MIB = 2048;

/** Plans a change in a thread that ends with it, so that a large configuration does not hold up other calls. */
export async function planInThread(question: PlanQuestion): Promise<ChangePlan> {
  const resourceLimits = { maxOldGenerationSizeMb: MAX_HEAP_MIB };
  const worker = new Worker(new URL(import.meta.url), { workerData: question, resourceLimits });
  try {
    const answer = await new Promise<PlanAnswer>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
      worker.once("exit", () => reject(new Error("the thread that plans a change of the configuration ended")));
    });
    if ("plan" in answer) return answer.plan;
    throw new Error(answer.failed);
  } finally {
    await worker.terminate();
  }
}

if (!isMainThread && parentPort !== null && isQuestion(workerData)) {
  const { dir, change } = workerData;
  const answer = await planDirectoryChange(dir, change).then(
    (plan): PlanAnswer => ({ plan }),
    (error: unknown): PlanAnswer => ({
      failed: error instanceof Error ? (error.stack ?? error.message) : String(error),
    }),
  );
  parentPort.postMessage(answer);
}

function isQuestion(data: unknown): data is PlanQuestion {
  return typeof data === "object" && data !== null && "change" in data;
}
