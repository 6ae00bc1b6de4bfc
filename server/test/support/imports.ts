/** What sources import, for the tests that hold the directions of imports and look for circles. */
import { posix } from "node:path";

/** One import of a file. */
export interface Import {
  readonly specifier: string;
  /** `type` for imports that are gone when the program runs. */
  readonly kind: "static" | "type" | "dynamic";
}

/**
 * The import, export-from and dynamic import statements of a source. A simple reading: statements begin a line, as the
 * formatter has them.
 */
export function importsOf(source: string): Import[] {
  const code = source.replace(/^\s*(?:\/\/|\/?\*).*$/gm, "");
  const found: Import[] = [];
  const statements =
    /^[ \t]*(?:import|export)\s+(type\s)?[\w$*{}\s,]*?\s*from\s*["']([^"']+)["']|^[ \t]*import\s*["']([^"']+)["']/gm;
  for (const [, type, from, bare] of code.matchAll(statements)) {
    found.push({ specifier: from ?? bare ?? "", kind: type === undefined ? "static" : "type" });
  }
  for (const [, type, literal] of code.matchAll(/(typeof\s+)?\bimport\s*\(\s*(?:["'`]([^"'`]*)["'`])?/g)) {
    // Without a literal the specifier is computed, which no rule allows.
    found.push({ specifier: literal ?? "(computed)", kind: type === undefined ? "dynamic" : "type" });
  }
  for (const [, literal] of code.matchAll(/(?<!\.)\brequire\s*\(\s*["'`]([^"'`]*)["'`]/g)) {
    found.push({ specifier: literal ?? "", kind: "static" });
  }
  return found;
}

/** The file of this repository that an import leads to, from the root; undefined for packages of others and of Node. */
export function importedFile(file: string, specifier: string): string | undefined {
  if (specifier.startsWith(".")) return posix.join(posix.dirname(file), specifier);
  const [scope, workspace, ...rest] = specifier.split("/");
  if (scope !== "@strongroom") return undefined;
  return `${workspace}/src/${rest.length === 0 ? "index" : rest.join("/")}.ts`;
}
