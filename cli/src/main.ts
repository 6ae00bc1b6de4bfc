#!/usr/bin/env node
/** The program `strongroom` of a checkout. */
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

// Compiling takes most of the start. What was compiled lies among the packages, where only who installs them can write,
// not in the temporary folder of everybody, which is Node's default. Where it cannot be written, nothing is kept.
enableCompileCache(fileURLToPath(new URL("../../node_modules/.cache/strongroom", import.meta.url)));
const { runProcess } = await import("./run-process.ts");
await runProcess();
