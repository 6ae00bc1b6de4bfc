import { readFileSync } from "node:fs";

/** Version of the program, from its package. */
export function programVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  return manifest.version;
}

/** How the program names itself to the server: `strongroom-cli/0.1.0`. */
export function programName(): string {
  return `strongroom-cli/${programVersion()}`;
}
