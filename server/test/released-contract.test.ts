/**
 * The contract only grows: `npm run check` holds it against the last release, and fails on what would break a client.
 */
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const RESOURCES = "proto/strongroom/v1/resources.proto";

/** Runs the step of `npm run check` on a copy of the contract that was changed. */
async function check(t: ExecutionContext, change: (folder: string) => Promise<void>) {
  const folder = await temporaryFolder(t);
  for (const each of ["proto", "third_party", "buf.yaml"])
    await cp(join(ROOT, each), join(folder, each), { recursive: true });
  await change(folder);
  const { scripts } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  t.regex(scripts.check!, /npm run check:breaking\b/);
  const PATH = [join(ROOT, "node_modules/.bin"), process.env.PATH].join(delimiter);
  const { code, stdout, stderr } = await run("bash", ["-c", scripts["check:breaking"]!], {
    cwd: folder,
    env: { PATH },
  });
  return { code, said: `${stdout}${stderr}` };
}

const edit = (from: RegExp, to: string) => async (folder: string) => {
  const path = join(folder, RESOURCES);
  const text = await readFile(path, "utf8");
  const changed = text.replace(from, to);
  if (changed === text) throw new Error(`${RESOURCES} has no ${from}`);
  await writeFile(path, changed);
};

const breaks: [title: string, change: (folder: string) => Promise<void>, said: RegExp][] = [
  [
    "a removed field",
    edit(/ {2}string filename = 4;\n/, ""),
    /field "4" with name "filename" on message "Version" was deleted/,
  ],
  [
    "a reserved field",
    edit(/ {2}string filename = 4;\n/, "  reserved 4;\n"),
    /"filename" on message "Version" was deleted/,
  ],
  ["a renamed field", edit(/string filename = 4;/, "string file_name = 4;"), /"filename" to "file_name"/],
  ["another type", edit(/string filename = 4;/, "bytes filename = 4;"), /changed type from "string" to "bytes"/],
  ["another number", edit(/string filename = 4;/, "string filename = 104;"), /field "4" with name "filename"/],
  ["a removed value", edit(/ {2}ROLE_UPLOADS_ANYTIME = 6;\n/, ""), /value "6" on enum "Role" was deleted/],
  [
    "a removed file",
    (folder) => rm(join(folder, "proto/strongroom/v1/error_reason.proto")),
    /error_reason.proto" was deleted/,
  ],
];

for (const [title, change, said] of breaks) {
  test(`${title} breaks clients`, async (t) => {
    const outcome = await check(t, change);
    t.not(outcome.code, 0);
    t.regex(outcome.said, said);
  });
}

test("what is added breaks no one: a field, a value, a message, a file; the contract as it is passes", async (t) => {
  const unchanged = await check(t, async () => {});
  t.is(unchanged.code, 0, unchanged.said);
  const added = await check(t, async (folder) => {
    await edit(/ {2}string filename = 4;\n/, "  string filename = 4;\n  // New.\n  string kept_by = 104;\n")(folder);
    await edit(
      / {2}ROLE_UPLOADS_ANYTIME = 6;\n/,
      "  ROLE_UPLOADS_ANYTIME = 6;\n  // New.\n  ROLE_AUDITOR = 7;\n",
    )(folder);
    const text = 'syntax = "proto3";\npackage strongroom.v1;\n// New.\nmessage New {}\n';
    await writeFile(join(folder, "proto/strongroom/v1/new.proto"), text);
  });
  t.is(added.code, 0, added.said);
});
