import { programVersion } from "./build.ts";

/** How the program names itself to the server: `strongroom-cli/0.1.0`. */
export function programName(): string {
  return `strongroom-cli/${programVersion()}`;
}
