/** The program `strongroom` of a package: one file with all of the client, made by `scripts/package-client.ts`. */
import { runProcess } from "./run-process.ts";

void runProcess();
