/**
 * What this program was built from: a checkout. `scripts/package-client.ts` puts a module with the same names in the
 * place of this one when it makes a package.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** How it was installed: `checkout`, `npm` or `executable`. */
export const KIND: string = "checkout";

/** Whether the commands of the server may be there. */
export const HAS_SERVER: boolean = true;

/** Version of the program, as in its package. */
export function programVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  return manifest.version;
}

/**
 * The whole hash of the commit, with `+changes` where files that git knows differ from it; `unknown` where git does not
 * say.
 */
export async function programCommit(): Promise<string> {
  const folder = fileURLToPath(new URL(".", import.meta.url));
  const asking = promisify(execFile)("git", [
    ...["-C", folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"],
  ]);
  return await asking.then(
    ({ stdout }) => stdout.trim(),
    () => "unknown",
  );
}
