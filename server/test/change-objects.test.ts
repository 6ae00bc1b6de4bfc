import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { applyObjects, deleteObject, documentsToCommit } from "../src/app/objects/change-objects.ts";
import { createAccessKey, setPassword } from "../src/app/objects/passwords.ts";
import { getObject } from "../src/app/objects/see-objects.ts";
import { type ConfigObjects, NotInForceError } from "../src/app/ports/config-objects.ts";
import type { Principal } from "../src/domain/access.ts";
import { onEachDatabase, openDatabase } from "./support/databases.ts";
import { principal, refused, user } from "./support/harness.ts";

const baseTest = anyTest as TestFn<{ database: SqlDatabase }>;
const test = onEachDatabase<SqlDatabase, { database: SqlDatabase }>(baseTest, {
  open: async (kind) => await openDatabase(kind, () => new Date()),
  use: async (t, database) => {
    t.context = { database };
  },
  close: async (database) => await database.close(),
});

const HASH = "$argon2id$v=19$m=64,t=1,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const API = "apiVersion: backups.riotkit.org/v1alpha1";
const USERS = "site/backups.riotkit.org/v1alpha1/backupusers/all.yaml";

const person = (name: string, spec: string) => `${API}
kind: BackupUser
metadata: {name: ${name}} # the one and only
spec: {email: ${name}@example.org,   ${spec}}
`;
const collection = (name: string, more = "") => `${API}
kind: BackupCollection
metadata: {name: ${name}}
spec:
  # As much as fits.
  maxBackupsCount: 2
  maxOneVersionSize: 1M
  maxCollectionSize: 10M${more === "" ? "" : `\n  ${more}`}
`;

/** A file with comments, blank lines and forms that nobody writes twice the same way. */
const FILE = `# Everybody.

---   # the administrator
${person("ann", `roles: [systemAdmin], password: "${HASH}"`)}
# After ann.
---
${person("bob", "roles:   [ ]").replace("spec:", '"spec":')}
...
# Between.
---
# Before mia.
${person("mia", "roles: [userManager]")}`;

const admin = principal(user("ann", { roles: ["systemAdmin"] }));
const mia = principal(user("mia", { roles: ["userManager"] }));
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const log = { debug() {}, info() {}, warn() {}, error() {} };
const options = {
  dryRun: false,
  expectedRevision: "",
  allowNoAdmin: false,
  confirmRemovals: 0n,
  answerFindings: false,
};

interface World {
  readonly dir: string;
  readonly source: ConfigFilesSource;
  apply(documents: string, more?: Partial<typeof options>, by?: Principal): ReturnType<typeof applyObjects>;
  remove(kind: "BackupUser" | "BackupCollection", name: string, by?: Principal): ReturnType<typeof deleteObject>;
  files(): Promise<Record<string, string>>;
}

async function opened(
  t: ExecutionContext<{ database: SqlDatabase }>,
  files: Record<string, string> = { [USERS]: FILE, "site/c.yaml": collection("db") },
  below = "",
): Promise<World> {
  const dir = join(await temporaryFolder(t), below);
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, file)), { recursive: true });
    await writeFile(join(dir, file), text);
  }
  const source = await ConfigFilesSource.open(dir, { settle: async () => {} });
  const deps = { config: source, database: t.context.database, log, sha256 };
  return {
    dir,
    source,
    apply: async (documents, more = {}, by = admin) => await applyObjects(deps, by, { documents, ...options, ...more }),
    remove: async (kind, name, by = admin) => await deleteObject(deps, by, { kind, name, ...options }),
    files: async () => await everyFile(dir),
  };
}

async function everyFile(dir: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of (await readdir(dir, { recursive: true })).sort())
    if ((await stat(join(dir, name))).isFile()) found[name] = await readFile(join(dir, name), "utf8");
  return found;
}

test("an object is written in its place, and the rest of its file to the letter as it was", async (t) => {
  const w = await opened(t);
  const bob = `# New words.\n${person("bob", "roles: [], about: new")}`;
  const { plan } = await w.apply(bob);
  t.deepEqual(
    plan.objects.map(({ action, entry }) => [action, entry.kind, entry.name, entry.file]),
    [["changed", "BackupUser", "bob", USERS]],
  );
  t.is(w.source.current().users.get("bob")?.about, "new", "in force when the call ends");
  const [before, after] = cut(FILE, "bob");
  t.is((await w.files())[USERS], `${before}${bob}${after}`);
  t.is((await w.apply(bob)).plan.objects[0]?.action, "unchanged");
  t.deepEqual(
    (await readdir(dirname(join(w.dir, USERS)))).filter((name) => name.startsWith(".")),
    [],
  );
});

/** What stands before and after the document of a user in a file: up to its `---`, and from its `...` on. */
function cut(text: string, name: string): [string, string] {
  const at = text.indexOf(`name: ${name}`);
  const start = text.lastIndexOf("---\n", at) + 4;
  return [text.slice(0, start), text.slice(text.indexOf("...\n", at))];
}

test("what is new gets a file of its own in the usual place, a Secret closed to others", async (t) => {
  const w = await opened(t);
  const secret = `apiVersion: v1\nkind: Secret\nmetadata: {name: pw}\nstringData: {cai: "${HASH}"}\n`;
  const cai = person("cai", "roles: [], passwordFromRef: {name: pw, entry: cai}");
  const { plan } = await w.apply(`${cai}---\n${secret}---\n${collection("new")}`);
  t.deepEqual(
    plan.objects.map(({ action, entry }) => [action, entry.file]),
    [
      ["created", "site/backups.riotkit.org/v1alpha1/backupusers/cai.yaml"],
      ["created", "site/v1/secrets/pw.yaml"],
      ["created", "site/backups.riotkit.org/v1alpha1/backupcollections/new.yaml"],
    ],
  );
  t.is((await stat(join(w.dir, "site/v1/secrets/pw.yaml"))).mode & 0o777, 0o600);
  t.is(w.source.current().users.get("cai")?.passwordHash, HASH);
  t.false(plan.diff.includes("argon2"), plan.diff);
  t.regex(plan.diff, /^\+stringData: \{cai: "<hidden, changed>"\}$/m);
  t.regex(
    plan.diff,
    /^--- \/dev\/null\n\+\+\+ site\/backups.riotkit.org\/v1alpha1\/backupusers\/cai.yaml\n@@ -0,0 \+1,4 @@$/m,
  );
});

test("a dry run says what would change, and changes nothing", async (t) => {
  const w = await opened(t);
  const before = await w.files();
  const { plan, readOnly } = await w.apply(collection("db", "maxAge: 1d"), { dryRun: true });
  t.is(readOnly, undefined);
  t.is(
    plan.diff,
    "--- site/c.yaml\n+++ site/c.yaml\n@@ -6,3 +6,4 @@\n   maxBackupsCount: 2\n   maxOneVersionSize: 1M\n" +
      "   maxCollectionSize: 10M\n+  maxAge: 1d\n",
  );
  t.deepEqual(await w.files(), before);
  t.is(w.source.current().collections.get("db")?.maxAgeMs, undefined);
});

test("what is wrong is said with the lines of the documents, and nothing is written", async (t) => {
  const w = await opened(t);
  const before = await w.files();
  const wrong = `${person("cai", "roles: [nonsense]")}---\n${collection("db", "maxAge: never")}`;
  const error = await refused(t, "OBJECTS_INVALID", w.apply(wrong));
  t.deepEqual(
    error.findings.map(({ file, line, path }) => [file, line, path]),
    [
      ["-", 4, "spec.roles[0]"],
      ["-", 14, "spec.maxAge"],
    ],
  );
  // Something else that depends on it is named in its own file.
  const gone = await refused(t, "OBJECTS_INVALID", w.apply("a: [\n"));
  t.is(gone.findings[0]?.file, "-");
  for (const nothing of ["kind: Pod\napiVersion: v1\nmetadata: {name: x}\n", "just: text\n", "# nothing\n", "- 1\n"])
    await t.throwsAsync(w.apply(nothing), undefined, nothing);
  t.deepEqual(await w.files(), before);
});

test("a dry run that is asked for findings answers with all of them, more than an error has room for", async (t) => {
  const w = await opened(t);
  const wrong = Array.from({ length: 60 }, (_, i) => person(`u${i}`, "roles: [nonsense]")).join("---\n");
  const error = await refused(t, "OBJECTS_INVALID", w.apply(wrong, { dryRun: true }));
  t.is(error.metadata.problems, "60");
  t.true(error.findings.length < 60);
  const { plan } = await w.apply(wrong, { dryRun: true, answerFindings: true });
  t.deepEqual(
    plan.problems.map(({ line }) => line),
    Array.from({ length: 60 }, (_, i) => 4 + 5 * i),
  );
  t.deepEqual([plan.objects, plan.diff], [[], ""]);
  await refused(t, "OBJECTS_INVALID", w.apply(wrong, { answerFindings: true }));
  await refused(
    t,
    "ACCESS_DENIED",
    w.apply(collection("db", "maxAge: never"), { ...options, dryRun: true, answerFindings: true }, mia),
  );
});

test("an object that is given twice is refused, and so are more windows than a collection may have", async (t) => {
  const w = await opened(t, { "db.yaml": collection("db") });
  for (const name of ["db", "new"]) {
    const documents = `${collection(name, "maxAge: 1d")}---\n${collection(name, "maxAge: 2d")}`;
    const error = await refused(t, "OBJECTS_INVALID", w.apply(documents));
    t.regex(JSON.stringify(error.findings), /given twice|defined twice|already/, name);
  }
  t.deepEqual(await w.files(), { "db.yaml": collection("db") });
  const windows = (count: number) => `windows: [${'{from: "0 1 * * *", duration: 1h}, '.repeat(count)}]`;
  const error = await refused(t, "OBJECTS_INVALID", w.apply(collection("db", windows(101))));
  t.regex(JSON.stringify(error.findings), /expected at most 100 windows, got 101/);
  await w.apply(collection("db", windows(100)));
});

test("an object is taken out, alone or with its file", async (t) => {
  const w = await opened(t);
  t.is((await w.remove("BackupUser", "bob")).plan.objects[0]?.action, "deleted");
  const text = (await w.files())[USERS]!;
  t.is(
    text,
    FILE.slice(0, FILE.lastIndexOf("---\n", FILE.indexOf("name: bob"))) + FILE.slice(FILE.indexOf("# Between.")),
  );
  await w.remove("BackupCollection", "db");
  t.deepEqual(Object.keys(await w.files()), [USERS]);
  t.deepEqual([...w.source.current().collections.keys()], []);
  await refused(t, "OBJECT_NOT_FOUND", w.remove("BackupCollection", "db"));
});

test("a change for another text than there is, is refused", async (t) => {
  const w = await opened(t);
  const get = { kind: "BackupCollection", name: "db", effective: false, format: "yaml" } as const;
  const { entry } = await getObject({ config: w.source }, admin, get);
  await w.apply(collection("db", "maxAge: 1d"), { expectedRevision: entry.revision });
  await refused(t, "CONFIGURATION_CONFLICT", w.apply(collection("db"), { expectedRevision: entry.revision }));
  await refused(t, "CONFIGURATION_CONFLICT", w.apply(collection("no"), { expectedRevision: entry.revision }));
  await refused(
    t,
    "INVALID_REQUEST",
    w.apply(`${collection("db")}---\n${collection("b")}`, { expectedRevision: entry.revision }),
  );
});

test("a file that is changed on disk while a change is judged keeps that change", async (t) => {
  for (const theirs of [collection("db", "maxAge: 2d"), undefined]) {
    const w = await opened(t);
    const path = join(
      w.dir,
      theirs === undefined ? "site/backups.riotkit.org/v1alpha1/backupcollections/x.yaml" : "site/c.yaml",
    );
    const objects: ConfigObjects = {
      list: () => w.source.objects.list(),
      read: async (object) => await w.source.objects.read(object),
      storeFor: async (plan) => await w.source.objects.storeFor(plan),
      plan: async (wanted) => {
        const plan = await w.source.objects.plan(wanted);
        await mkdir(dirname(path), { recursive: true });
        await writeFile(path, theirs ?? collection("x", "maxAge: 3d"));
        return plan;
      },
    };
    const config = { current: () => w.source.current(), objects };
    const documents = collection(theirs === undefined ? "x" : "db", "maxAge: 1d");
    const error = await refused(
      t,
      "CONFIGURATION_CONFLICT",
      applyObjects({ config, database: t.context.database, log, sha256 }, admin, { documents, ...options }),
    );
    t.is(error.metadata.written, undefined);
    t.is(await readFile(path, "utf8"), theirs ?? collection("x", "maxAge: 3d"));
    t.deepEqual(
      Object.keys(await w.files()).filter((name) => name.includes("/.")),
      [],
      "no temporary file is left",
    );
  }
});

test("two changes at once are both made, or one is told to come again", async (t) => {
  const w = await opened(t);
  const names = ["a", "b", "c", "d"];
  const all = await Promise.allSettled(names.map(async (name) => await w.apply(collection(name))));
  for (const [i, one] of all.entries()) {
    t.is(one.status === "fulfilled", w.source.current().collections.has(names[i]!));
    if (one.status === "rejected") t.is((one.reason as { reason: string }).reason, "CONFIGURATION_CONFLICT");
  }
  t.true(all.some(({ status }) => status === "fulfilled"));
});

test("a source that is written elsewhere says so, with the YAML to commit", async (t) => {
  const isGit = await opened(t);
  await mkdir(join(isGit.dir, ".git"));
  const isInGit = await opened(t, undefined, "clusters/one/backups");
  // A worktree's is a file.
  await writeFile(join(isInGit.dir, "../../../.git"), "gitdir: elsewhere");
  const isMounted = await opened(t);
  await mkdir(join(isMounted.dir, "..data"));
  const isLinked = await opened(t);
  const linked = await temporaryFolder(t);
  await writeFile(join(linked, "l.yaml"), collection("linked"));
  await symlink(join(linked, "l.yaml"), join(isLinked.dir, "l.yaml"));
  await isLinked.source.reload();
  for (const [w, name, why] of [
    [isGit, "db", /it is a Git/],
    [isInGit, "db", /it is in a Git/],
    [isMounted, "db", /ConfigMap/],
    [isLinked, "linked", /symbolic link/],
  ] as const) {
    const document = collection(name, "maxAge: 1d");
    const error = await refused(t, "CONFIGURATION_READ_ONLY", w.apply(document));
    t.regex(error.message, why);
    t.deepEqual(
      error.toCommit.map((each) => each.document),
      [document],
    );
    const dry = await w.apply(document, { dryRun: true });
    t.regex(dry.readOnly ?? "", why);
    await refused(t, "CONFIGURATION_READ_ONLY", w.remove("BackupCollection", name));
  }
  t.is(await readFile(join(linked, "l.yaml"), "utf8"), collection("linked"));
});

test("a folder that a Git checkout ignores is written to, as the one of README is, unless a file in it is tracked", async (t) => {
  const w = await opened(t, undefined, "strongroom-data/config");
  const top = join(w.dir, "../..");
  // Not those of a hook that runs the tests.
  const env = { PATH: process.env.PATH, HOME: top };
  const git = async (...args: string[]) => await promisify(execFile)("git", args, { cwd: top, env });
  await git("init", "--quiet");
  await writeFile(join(top, ".gitignore"), "strongroom-data/\n");
  await w.apply(collection("db", "maxAge: 1d"));
  await w.apply(person("eve", "roles: []"));
  t.is((await git("status", "--porcelain")).stdout, "?? .gitignore\n");
  await git("add", "--force", "strongroom-data/config/site/c.yaml");
  t.regex(
    (await refused(t, "CONFIGURATION_READ_ONLY", w.apply(person("eve", "roles: [], about: new")))).message,
    /in a Git/,
  );
  await git("rm", "--cached", "--quiet", "strongroom-data/config/site/c.yaml");
  await w.apply(person("eve", "roles: [], about: new"));
  await writeFile(join(top, ".gitignore"), "");
  t.regex((await refused(t, "CONFIGURATION_READ_ONLY", w.apply(person("eve", "roles: []")))).message, /in a Git/);
});

test("userManager changes users, none that have more, and gives nothing away", async (t) => {
  const files = {
    [USERS]: FILE,
    "site/c.yaml": collection("db", "accessControl: [{userName: bob, roles: [backupDownloader]}]"),
  };
  const w = await opened(t, files);
  const by = async (documents: string) => await w.apply(documents, {}, mia);
  await by(person("eve", "roles: [userManager]"));
  await by(person("eve", "roles: []"));
  for (const role of ["systemAdmin", "collectionManager", "backupUploader", "backupDownloader", "uploadsAnytime"])
    await refused(t, "ACCESS_DENIED", by(person("eve", `roles: [${role}]`)));
  await refused(t, "ACCESS_DENIED", by(person("mia", "roles: [userManager, systemAdmin]")));
  await refused(t, "ACCESS_DENIED", by(person("ann", "roles: []")));
  // What an access list gives is a role too: whoever sets bob's password can be bob.
  await refused(t, "ACCESS_DENIED", by(person("bob", "roles: []")));
  await refused(t, "ACCESS_DENIED", w.remove("BackupUser", "ann", mia));
  await refused(t, "ACCESS_DENIED", by(collection("db", "maxAge: 1d")));
  await refused(t, "ACCESS_DENIED", by(`apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {}\n`));
  await refused(t, "ACCESS_DENIED", by(`${person("eve", "roles: []")}---\n${collection("db", "maxAge: never")}`));
  await refused(t, "ACCESS_DENIED", w.remove("BackupCollection", "db", mia));
  for (const who of [principal(user("x")), principal(admin.user, { accessKey: "k" })])
    await refused(t, "ACCESS_DENIED", w.apply(collection("db", "maxAge: 1d"), {}, who));
  const wider = principal(user("mia", { roles: ["userManager", "backupDownloader"] }));
  await w.apply(person("bob", "roles: [], about: hers"), {}, wider);
});

test("the last administrator stays, unless it is said", async (t) => {
  const w = await opened(t);
  const ann = (spec: string) => person("ann", spec);
  for (const spec of [
    "roles: []",
    `roles: [systemAdmin], deactivated: true, password: "${HASH}"`,
    "roles: [systemAdmin]",
  ])
    await refused(t, "NO_ADMIN_LEFT", w.apply(ann(spec)));
  await refused(t, "NO_ADMIN_LEFT", w.remove("BackupUser", "ann"));
  await refused(t, "NO_ADMIN_LEFT", w.apply(ann("roles: []"), { dryRun: true }));
  await w.apply(ann("roles: []"), { allowNoAdmin: true });
  t.deepEqual(w.source.current().users.get("ann")?.roles, []);
});

test("what is hidden stays as it is when an object is given back", async (t) => {
  const secret = `apiVersion: v1\nkind: Secret\nmetadata: {name: pw}\ndata: {a: ${Buffer.from(HASH).toString("base64")}}\n`;
  const w = await opened(t, { [USERS]: FILE, "s.yaml": secret });
  const get = async (kind: "BackupUser" | "Secret", name: string) =>
    (await getObject({ config: w.source }, admin, { kind, name, effective: false, format: "yaml" })).document;
  const before = w.source.current().users.get("ann")!;
  await w.apply((await get("BackupUser", "ann")).replace("roles:", "about: she, roles:"));
  t.deepEqual(w.source.current().users.get("ann"), { ...before, about: "she" });
  await w.apply((await get("Secret", "pw")).replace("\ndata:", "\ntype: Opaque\ndata:"));
  t.is(
    (await w.files())["s.yaml"]?.replace('"', "").replace('"', ""),
    secret.replace("\ndata:", "\ntype: Opaque\ndata:"),
  );
  const error = await refused(t, "OBJECTS_INVALID", w.apply(person("new", 'roles: [], password: "<hidden>"')));
  t.is(error.findings[0]?.line, 4);
});

test("items of a List and files in JSON are changed in their form", async (t) => {
  const item = (name: string) =>
    `  # ${name}\n  - {${API}, kind: BackupUser, metadata: {name: ${name}}, spec: {email: a@b, roles: []}}\n`;
  const list = `apiVersion: v1\nkind: List # of people\nitems:\n${item("one")}${item("two")}${item("three")}`;
  const json = JSON.stringify({
    apiVersion: "backups.riotkit.org/v1alpha1",
    kind: "BackupUser",
    metadata: { name: "j" },
    spec: { email: "a@b", roles: [] },
  });
  const w = await opened(t, { [USERS]: FILE, "list.yaml": list, "j.json": json });
  await w.apply(`${person("two", "roles: [], about: changed")}---\n${person("j", "roles: [], about: changed")}`);
  t.is(w.source.current().users.get("two")?.about, "changed");
  const files = await w.files();
  for (const words of ["# of people", "# one", "# three"])
    t.true(files["list.yaml"]!.includes(words), files["list.yaml"]);
  t.is((JSON.parse(files["j.json"]!) as { spec: { about: string } }).spec.about, "changed");
  await w.remove("BackupUser", "two");
  t.deepEqual([...w.source.current().users.keys()].sort(), ["ann", "bob", "j", "mia", "one", "three"]);
  const asJson = JSON.stringify({ ...(JSON.parse(json) as object), metadata: { name: "fromjson" } });
  const { plan } = await w.apply(asJson);
  t.regex((await w.files())[plan.objects[0]!.entry.file]!, /^apiVersion: .*\nkind: BackupUser\n/);
});

test("a password goes where its hash is, an access key to a Secret, and neither changes anybody else's", async (t) => {
  const encoded = Buffer.from(HASH).toString("base64");
  const secret = `# Hashes.\napiVersion: v1\nkind: Secret\nmetadata: { name: pw }\ndata:\n  shared: ${encoded} # of two\n`;
  const shared = "passwordFromRef: {name: pw, entry: shared}";
  const people = [
    person("ann", `roles: [systemAdmin], password: "${HASH}"`),
    person("two", `roles: [], ${shared}`),
    person("three", `roles: [], ${shared}`),
    person("mia", "roles: [userManager]"),
  ];
  const w = await opened(t, { "u.yaml": people.join("---\n"), "pw.yaml": secret, "c.yaml": collection("db") });
  let made = 0;
  const deps = {
    config: w.source,
    database: t.context.database,
    log,
    sha256,
    newPassword: () => `made${++made}`,
    passwords: { verify: async () => false, hash: async (password: string) => hashOf(password) },
  };
  const hashes = () =>
    [...w.source.current().users.values()].map(({ name, passwordHash, accessKeys }) => [
      name,
      passwordHash,
      ...accessKeys.map((key) => `${key.name} ${key.passwordHash}`),
    ]);
  t.is((await setPassword(deps, admin, { username: "ann", password: "" })).password, "made1");
  await setPassword(deps, admin, { username: "two", password: "given password" });
  const rights = { collections: ["db"], roles: ["backupUploader" as const], restrictByIp: ["10.0.0.0/8"] };
  const key = await createAccessKey(deps, mia, { userName: "three", accessKey: "k", ...rights });
  t.deepEqual([key.username, key.password], ["three$k", "made2"]);
  await setPassword(deps, mia, { username: "mia", password: "" });
  t.deepEqual(hashes(), [
    ["ann", hashOf("made1")],
    ["two", hashOf("given password")],
    ["three", HASH, `k ${hashOf("made2")}`],
    ["mia", hashOf("made3")],
  ]);
  await setPassword(deps, mia, { username: "three$k", password: "" });
  t.deepEqual(hashes()[2], ["three", HASH, `k ${hashOf("made4")}`]);
  const files = await w.files();
  t.true(files["pw.yaml"]!.startsWith(secret), files["pw.yaml"]);
  t.deepEqual(Object.keys(files).sort(), [
    "c.yaml",
    "pw.yaml",
    "strongroom/v1/secrets/strongroom-passwords.yaml",
    "u.yaml",
  ]);

  const before = await w.files();
  await refused(t, "ACCESS_DENIED", setPassword(deps, mia, { username: "ann", password: "" }));
  await refused(t, "ACCESS_DENIED", createAccessKey(deps, mia, { userName: "ann", accessKey: "k", ...rights }));
  await refused(t, "OBJECT_EXISTS", createAccessKey(deps, admin, { userName: "three", accessKey: "k", ...rights }));
  await refused(t, "OBJECT_NOT_FOUND", setPassword(deps, admin, { username: "three$no", password: "" }));
  await refused(t, "OBJECT_NOT_FOUND", setPassword(deps, admin, { username: "nobody", password: "" }));
  await mkdir(join(w.dir, ".git"));
  const error = await refused(
    t,
    "CONFIGURATION_READ_ONLY",
    setPassword(deps, admin, { username: "two", password: "" }),
  );
  t.false(/argon2|JGFy/.test(JSON.stringify(error.toCommit)), "no hash is shown, whoever's");
  t.deepEqual(await w.files(), before);
});

test("a lock is held against calls of the same server too", async (t) => {
  const { database } = t.context;
  const take = async () => await database.exclusively("a", async () => "taken");
  const held = await database.exclusively("a", take);
  t.deepEqual(held, { result: undefined });
  await t.throwsAsync(
    database.exclusively("a", async () => {
      throw new Error("failed");
    }),
  );
  t.deepEqual(await take(), { result: "taken" }, "given back after success and failure");
});

test("two access keys at once whose hashes are in one Secret are both made, or one is told to come again", async (t) => {
  const people = [person("one", "roles: []"), person("two", "roles: []")].join("---\n");
  const w = await opened(t, { [USERS]: FILE, "u1.yaml": people, "c.yaml": collection("db") });
  const deps = {
    config: w.source,
    database: t.context.database,
    log,
    sha256,
    newPassword: () => "made",
    passwords: { verify: async () => false, hash: async (password: string) => hashOf(password) },
  };
  const rights = { collections: ["db"], roles: ["backupUploader" as const], restrictByIp: [] };
  const names = ["one", "two"];
  const all = await Promise.allSettled(
    names.map(async (userName) => await createAccessKey(deps, admin, { userName, accessKey: "k", ...rights })),
  );
  for (const [i, one] of all.entries()) {
    t.is(one.status === "fulfilled", w.source.current().users.get(names[i]!)?.accessKeys.length === 1);
    if (one.status === "rejected") t.is((one.reason as { reason: string }).reason, "CONFIGURATION_CONFLICT");
  }
  t.true(all.some(({ status }) => status === "fulfilled"));
});

test("what is to be committed has no hidden values", async (t) => {
  const secret = `apiVersion: v1\nkind: Secret\nmetadata: {name: pw}\nstringData: {a: "${HASH}"}\n`;
  const w = await opened(t, { [USERS]: FILE, "s.yaml": secret, "deep/config/c.yaml": collection("db") });
  await mkdir(join(w.dir, ".git"));
  const given = `${secret.replace(HASH, "<hidden>")}type: Opaque\n`;
  const error = await refused(t, "CONFIGURATION_READ_ONLY", w.apply(given));
  const dry = await w.apply(given, { dryRun: true });
  for (const documents of [error.toCommit, documentsToCommit(dry.plan.objects)])
    t.deepEqual(documents, [{ file: "s.yaml", document: given }]);
});

test("a new access key does not take over the hidden password of another", async (t) => {
  const key = (name: string, password: string) => `{name: ${name}, password: "${password}", objects: []}`;
  const keyed = (keys: string) => person("kay", `roles: [], accessKeys: [${keys}]`);
  const w = await opened(t, { [USERS]: FILE, "k.yaml": keyed(key("old", HASH)) });
  const error = await refused(t, "OBJECTS_INVALID", w.apply(keyed(key("new", "<hidden>"))));
  t.regex(error.message, /there is none/);
  await w.apply(keyed(`${key("new", hashOf("x"))}, ${key("old", "<hidden>")}`));
  t.is(
    w.source
      .current()
      .users.get("kay")
      ?.accessKeys.find(({ name }) => name === "old")?.passwordHash,
    HASH,
  );
});

test("a change that is written and not in force is in the audit log, with who made it", async (t) => {
  const w = await opened(t);
  const { objects } = w.source;
  const failing: ConfigObjects = {
    list: () => objects.list(),
    read: async (object) => await objects.read(object),
    plan: async (wanted) => await objects.plan(wanted),
    storeFor: async () => ({
      write: async () => {
        throw new NotInForceError("others write too");
      },
    }),
  };
  const config = { current: () => w.source.current(), objects: failing };
  const { database } = t.context;
  const documents = collection("unforced");
  const error = await refused(
    t,
    "CONFIGURATION_CONFLICT",
    applyObjects({ config, database, log, sha256 }, admin, { documents, ...options }),
  );
  t.is(error.metadata.written, "true");
  const rows = await database.read(async (tx) => await tx.auditLog.unchained(1000));
  const row = rows.find(({ object }) => object === "BackupCollection/unforced");
  t.like(row, { kind: "configuration.applied", actor: "user:ann" });
});

/** A hash that nothing was computed for. */
function hashOf(password: string): string {
  const bytes = Buffer.from(password.padEnd(32, "x")).toString("base64").replaceAll("=", "");
  return `$argon2id$v=19$m=64,t=1,p=4$AAAAAAAAAAAAAAAAAAAAAA$${bytes}`;
}
