/**
 * Runs `backup` or `restore` against a client that is not there, as a process of its own: tests run in worker threads,
 * where the program does not use real pipes. Arguments: what the transfer is to end with (`ok`, `damaged`, `stuck`),
 * then the command line.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { IntegrityError } from "@strongroom/client-sdk";
import { processContext, SECRET_NAMES } from "../../src/context.ts";
import { run } from "../../src/program.ts";
import { fakeSdk, version } from "./fake-sdk.ts";

const [end, ...argv] = process.argv.slice(2);

const { load } = fakeSdk({
  download: async ({ sink, onVersion }) => {
    await onVersion?.(version());
    for (const chunk of ["part one, ", "part two\n"]) await sink?.(Buffer.from(chunk));
    await sleep(300);
    if (end === "damaged") throw new IntegrityError("a segment differs");
    return { version: version(), outputBytes: 19n, resumes: 0 };
  },
  upload: async ({ source, beforeCommit, signal }) => {
    for await (const chunk of source) {
      process.stdout.write(chunk);
      signal?.throwIfAborted();
    }
    signal?.throwIfAborted();
    await beforeCommit?.();
    process.stdout.write("committed\n");
    return {
      version: version(),
      removedNumbers: [],
      sourceBytes: 1n,
      sentBytes: 0n,
      mostSpooledBytes: 0n,
      resumes: 0,
      compressed: false,
    };
  },
});

const context = processContext();
// The SDK starts gpg and age with this environment.
if (SECRET_NAMES.some((name) => name in process.env)) throw new Error("a secret is left in the environment");
const code = await run(argv, { ...context, sdk: load, killGraceMs: 500 });
process.stdout.write("", () => process.exit(code));
