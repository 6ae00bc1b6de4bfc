/** A change over the network that would remove many versions is said before it is written, and needs their number. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { applyObjects } from "../src/app/objects/change-objects.ts";
import { type Harness, harnessTest, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

const MESSAGE = openpgpMessage(1000);
const API = "apiVersion: backups.riotkit.org/v1alpha1";
const options = { dryRun: false, expectedRevision: "", allowNoAdmin: false, confirmRemovals: 0n };

const collection = (name: string, count: number, more = "") =>
  `${API}\nkind: BackupCollection\nmetadata: {name: ${name}}\n` +
  `spec: {maxBackupsCount: ${count}, maxOneVersionSize: 1M, maxCollectionSize: 20M${more}}\n`;
const defaults = (count: number) =>
  `${API}\nkind: BackupCollectionDefaults\nmetadata: {name: usual}\n` +
  `spec: {maxBackupsCount: ${count}, maxOneVersionSize: 1M, maxCollectionSize: 20M}\n`;
const sharing = (name: string) =>
  `${API}\nkind: BackupCollection\nmetadata: {name: ${name}}\nspec: {defaultsRef: usual}\n`;

/** Collections with versions, and what applies documents to them. */
async function opened(t: ExecutionContext<{ h: Harness }>, text: string, names: readonly string[], versions = 8) {
  const { h } = t.context;
  const dir = await temporaryFolder(t);
  const file = join(dir, "c.yaml");
  await mkdir(dir, { recursive: true });
  await writeFile(file, text);
  const source = await ConfigFilesSource.open(dir, { settle: async () => {} });
  const inForce = () => {
    for (const [name, spec] of source.current().collections) h.collections.set(name, spec);
  };
  inForce();
  for (let i = 0; i < versions; i++) for (const name of names) await h.upload(name, MESSAGE);
  const deps = {
    config: source,
    database: h.deps.database,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    sha256: String,
  };
  const apply = async (documents: string, more: Partial<typeof options> = {}) => {
    const result = await applyObjects(deps, h.admin, { documents, ...options, ...more });
    inForce();
    return result;
  };
  return { h, file, source, apply };
}

test("more removals than the share are refused until their number is named, and then go with the next backup", async (t) => {
  const text = collection("db", 10);
  const { h, file, source, apply } = await opened(t, text, ["db"]);
  const few = collection("db", 2);
  const error = await refused(t, "ROTATION_BLOCKED", apply(few));
  t.like(error.metadata, { guard: "policy", removes: "7", live: "8" });
  t.regex(error.message, /--confirm-removals 7`/);
  await refused(t, "ROTATION_BLOCKED", apply(few, { confirmRemovals: 6n }));
  t.is(await readFile(file, "utf8"), text, "nothing was written");
  t.is(source.current().collections.get("db")?.maxBackupsCount, 10);

  const { plan } = await apply(few, { dryRun: true });
  t.deepEqual(
    plan.warnings.map((warning) => [warning.file, warning.line, warning.path]),
    [["c.yaml", 3, "spec"]],
  );
  t.regex(plan.warnings[0]!.reason, /"db" removes 7 of 8 versions.*--confirm-removals 7`.*confirm-policy db 7`/);

  await apply(few, { confirmRemovals: 7n });
  t.is((await h.upload("db", MESSAGE)).removedNumbers.length, 7, "it is not to be confirmed a second time");
  t.is((await apply(few, { confirmRemovals: 7n })).plan.objects[0]?.action, "unchanged", "under retry");
});

test("a change of what several collections share names all that go by it", async (t) => {
  const text = [defaults(10), sharing("a"), sharing("b"), sharing("unused"), collection("own", 10)].join("---\n");
  const { h, apply } = await opened(t, text, ["a", "b", "own"]);
  const { plan } = await apply(defaults(1), { dryRun: true });
  t.deepEqual(
    plan.warnings.map(({ reason }) => /"(\w+)" removes (\d+) .*confirm_removals (\d+)/.exec(reason)?.slice(1)),
    [
      ["a", "8", "16"],
      ["b", "8", "16"],
    ],
  );
  const error = await refused(t, "ROTATION_BLOCKED", apply(defaults(1), { confirmRemovals: 8n }));
  t.like(error.metadata, { removes: "16", live: "16" });
  await apply(defaults(1), { confirmRemovals: 16n });
  for (const name of ["a", "b"]) t.is((await h.upload(name, MESSAGE)).removedNumbers.length, 8, name);
  t.is((await h.upload("own", MESSAGE)).removedNumbers.length, 0);
});

test("few removals, other fields and collections without versions need no number", async (t) => {
  const { apply } = await opened(t, `${collection("few", 10)}---\n${collection("empty", 10)}`, ["few"]);
  for (const documents of [collection("few", 5), collection("few", 10, ", maxAge: 1d"), collection("empty", 1)]) {
    const { plan } = await apply(documents);
    t.deepEqual(plan.warnings, []);
  }
  await refused(t, "ROTATION_BLOCKED", apply(collection("few", 1, ', confirmRemovalsAbove: "100%"')));
});
