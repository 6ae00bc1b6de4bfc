import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const at = (path: string) => fileURLToPath(new URL(`../../../../${path}`, import.meta.url));

/** Id of the commit that this checkout has; empty where it is none. */
export function checkoutCommit(): string {
  try {
    const head = readFileSync(at(".git/HEAD"), "utf8").trim();
    const ref = head.startsWith("ref: ") ? readFileSync(at(`.git/${head.slice(5)}`), "utf8").trim() : head;
    return /^[0-9a-f]{40,64}$/.test(ref) ? ref : "";
  } catch {
    return "";
  }
}

/** The version of this program, as package.json says it. */
export function serverVersion(): string {
  const { version } = JSON.parse(readFileSync(at("package.json"), "utf8")) as { readonly version: string };
  return version;
}
