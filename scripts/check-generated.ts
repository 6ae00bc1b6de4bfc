/** Fails when generated code or migrations differ from what their sources make: `npm run check:generated`. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { OPTIONS_PAGE, optionsPage } from "./options-page.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Content of every file below a directory, by relative path. */
function contents(root: string): Map<string, string> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files.map((file) => {
      const path = join(file.parentPath, file.name);
      return [relative(root, path), readFileSync(path, "base64")];
    }),
  );
}

function differing(a: Map<string, string>, b: Map<string, string>): string[] {
  return [...new Set([...a.keys(), ...b.keys()])].filter((path) => a.get(path) !== b.get(path));
}

const temporary = mkdtempSync(join(tmpdir(), "strongroom-generated-"));
const problems: string[] = [];
try {
  const generated = join(temporary, "gen/src");
  execFileSync("buf", ["generate", "--output", temporary], { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
  execFileSync("buf", ["build", "--as-file-descriptor-set", "-o", join(generated, "strongroom.binpb")], {
    cwd: ROOT,
    stdio: "inherit",
  });
  for (const path of differing(contents(join(ROOT, "gen/src")), contents(generated))) {
    problems.push(`gen/src/${path} is not what proto/ makes: run \`npm run generate\``);
  }

  if (readFileSync(OPTIONS_PAGE, "utf8") !== optionsPage())
    problems.push("docs/options.md is not what the options' declarations make: run `npm run generate`");

  // drizzle-kit writes a new migration when the schema has changed since the last one.
  const migrations = join(temporary, "migrations");
  cpSync(join(ROOT, "migrations"), migrations, { recursive: true });
  const out = relative(ROOT, migrations);
  const schema = "./server/src/adapters/postgres/schema.ts";
  execFileSync("drizzle-kit", ["generate", "--dialect", "postgresql", "--schema", schema, "--out", out], {
    cwd: ROOT,
    stdio: "ignore",
  });
  for (const path of differing(contents(join(ROOT, "migrations")), contents(migrations))) {
    problems.push(`migrations/${path} is missing or stale: run \`npm run migrations\``);
  }
} finally {
  rmSync(temporary, { recursive: true, force: true });
}
for (const problem of problems) process.stderr.write(`${problem}\n`);
process.exit(problems.length === 0 ? 0 : 1);
