/** The thread that looks at a configuration directory; see {@link ConfigThread}. */
import { workerData } from "node:worker_threads";
import type { ThreadAnswer, ThreadData, ThreadQuestion } from "./config-thread.ts";
import { DirectoryJudge, type Judgement } from "./directory.ts";
import { Looking } from "./looking.ts";

const { dir, known, pollMs, port } = workerData as ThreadData;
const looking = new Looking(new DirectoryJudge(dir, known), pollMs, (judgement) => {
  if (judgement.kind !== "unchanged") answer({ judgement });
});

function answer({ judgement, ...rest }: ThreadAnswer): void {
  try {
    port.postMessage({ ...rest, judgement });
  } catch (error) {
    const failed: Judgement = { kind: "failed", error: new Error(`it cannot be handed over: ${error}`) };
    port.postMessage({ ...rest, judgement: failed });
  }
}

port.on("message", ({ id, force }: ThreadQuestion) => {
  void looking.look(force).then((judgement) => answer({ id, judgement }));
});
looking.start();
