import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { ConfigFilesSource, loadConfiguration } from "../src/adapters/config-files/source.ts";
import { getObject } from "../src/app/objects/see-objects.ts";
import { formatProblem } from "../src/objects/problem.ts";
import { principal, user } from "./support/harness.ts";

const object = (kind: string, name: string, spec: string) =>
  `apiVersion: backups.riotkit.org/v1alpha1\nkind: ${kind}\nmetadata: {name: ${name}}\nspec:\n  ${spec.replaceAll("\n", "\n  ")}\n`;
const defaults = (name: string, spec: string) => object("BackupCollectionDefaults", name, spec);
const collection = (name: string, spec: string) => object("BackupCollection", name, spec);
const LIMITS = "maxBackupsCount: 2\nmaxOneVersionSize: 1M\nmaxCollectionSize: 10M";

async function folder(t: ExecutionContext, files: Record<string, string>): Promise<string> {
  const dir = await temporaryFolder(t);
  for (const [file, text] of Object.entries(files)) await writeFile(join(dir, file), text);
  return dir;
}

async function load(t: ExecutionContext, files: Record<string, string>) {
  const { configuration, problems, warnings } = await loadConfiguration(await folder(t, files));
  const texts = [...problems, ...warnings].map(formatProblem).filter((text) => !text.includes("no BackupUser"));
  return { collections: configuration.collections, texts };
}

test("a collection has the fields of its defaults, and its own win", async (t) => {
  const { collections, texts } = await load(t, {
    "d.yaml": defaults(
      "usual",
      `${LIMITS}\nmaxAge: 1d\ntimezone: Europe/Warsaw\nwindows: [{from: "0 1 * * *", duration: 1h}]`,
    ),
    "a.yaml": collection("a", "defaultsRef: usual"),
    "b.yaml": collection("b", "defaultsRef: usual\nmaxAge: 2d\nwindows: []\ntimezone:\nmaxBackupsCount: 3"),
  });
  t.deepEqual(texts, []);
  const [a, b] = [collections.get("a")!, collections.get("b")!];
  t.deepEqual(
    [a.maxBackupsCount, a.maxOneVersionSize, a.maxAgeMs, a.windows.length, a.timezone],
    [2, 1024n * 1024n, 86_400_000, 1, "Europe/Warsaw"],
  );
  // A field without a value counts as left out; an empty list is a value.
  t.deepEqual([b.maxBackupsCount, b.maxAgeMs, b.windows.length, b.timezone], [3, 2 * 86_400_000, 0, "Europe/Warsaw"]);
});

test("what is wrong in defaults is said once, where it stands, with the collections that have it from there", async (t) => {
  const names = ["a", "b", "c", "d", "e"];
  const { texts } = await load(t, {
    "d.yaml": defaults("usual", `${LIMITS}\nmaxAge: never\nnonsense: 1`),
    "c.yaml": names.map((name) => collection(name, "defaultsRef: usual")).join("---\n"),
  });
  t.is(texts.length, 2, texts.join("\n"));
  t.regex(texts[0]!, /^d\.yaml:8: spec\.maxAge: .* \(for BackupCollection "a", .*"c" and 2 more\)$/);
  t.regex(texts[1]!, /^d\.yaml:9: spec\.nonsense: unknown field/);
  // Where the two do not fit together, it is said of that collection alone.
  const hard = await load(t, {
    "d.yaml": defaults("usual", LIMITS),
    "c.yaml": `${collection("a", "defaultsRef: usual")}---\n${collection("b", "defaultsRef: usual\nmaxBackupsCount: 20")}`,
  });
  t.is(hard.texts.length, 1);
  t.regex(hard.texts[0]!, /^d\.yaml:7: spec\.maxCollectionSize: .*20 \* 1 MiB.*\(for BackupCollection "b"\)$/);
});

test("defaults that are not there, that have defaults, or that nobody names", async (t) => {
  const { texts } = await load(t, {
    "d.yaml": `${defaults("usual", `defaultsRef: other\n${LIMITS}`)}---\n${defaults("unused", "maxAge: never")}`,
    "c.yaml": `${collection("a", "defaultsRef: usual")}---\n${collection("b", `defaultsRef: usuel\n${LIMITS}`)}`,
  });
  t.is(texts.length, 3, texts.join("\n"));
  t.regex(texts.join("\n"), /c\.yaml:\d+: spec\.defaultsRef: .*"usuel", which is not there; did you mean "usual"/);
  t.regex(texts.join("\n"), /d\.yaml:5: spec\.defaultsRef: expected no defaultsRef here/);
  t.regex(texts.join("\n"), /no BackupCollection names it/);
});

test("the effective collection shows what comes from its defaults", async (t) => {
  const dir = await folder(t, {
    "d.yaml": defaults("usual", `${LIMITS}\nmaxAge: 1d`),
    "a.yaml": collection("a", "# Mine.\ndefaultsRef: usual\nmaxAge: 2d"),
    "u.yaml": object("BackupUser", "ann", "email: a@b\nroles: []"),
  });
  const config = await ConfigFilesSource.open(dir);
  const admin = principal(user("ann", { roles: ["systemAdmin"] }));
  const get = async (effective: boolean, format: "yaml" | "json" = "yaml") =>
    (await getObject({ config }, admin, { kind: "BackupCollection", name: "a", effective, format })).document;
  t.is(await get(false), collection("a", "# Mine.\ndefaultsRef: usual\nmaxAge: 2d"));
  t.regex(
    await get(true),
    /# Mine\.\n {2}defaultsRef: usual\n {2}maxAge: 2d\n {2}# from BackupCollectionDefaults usual\n {2}maxBackupsCount: 2\n/,
  );
  t.like((JSON.parse(await get(true, "json")) as { spec: object }).spec, { maxAge: "2d", maxCollectionSize: "10M" });
});
