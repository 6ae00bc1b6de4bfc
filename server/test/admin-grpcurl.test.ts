/** AdminService by the real grpcurl, against a real process; and that process killed in the middle of a change. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { endWithUs, type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { Grpcurl } from "./support/grpcurl.ts";

interface Context {
  folder: string;
  config: string;
  password: string;
  server: ServerProcess;
  grpcurl: Grpcurl;
}

const test = anyTest as TestFn<Context>;
const MEMORY = ["--database", "pglite:memory", "--storage", "mem://"];
const LIMITS = "maxBackupsCount: 2, maxOneVersionSize: 1M, maxCollectionSize: 10M";

test.before(async (t) => {
  if (findPeer("grpcurl") === undefined) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-admin-"));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "db");
  const server = await startServerProcess(["--config", config, ...MEMORY]);
  t.context = { folder, config, password, server, grpcurl: await loggedIn(t, server, "admin", password) };
});
test.after.always(async (t) => {
  await t.context.server?.end("SIGTERM");
  if (t.context.folder !== undefined) await rm(t.context.folder, { recursive: true, force: true });
});

async function loggedIn(t: ExecutionContext, { url }: ServerProcess, username: string, password: string) {
  const grpcurl = new Grpcurl(["-plaintext"], new URL(url).host);
  grpcurl.token = (await grpcurl.call(t, "SessionService/Login", { username, password })).token;
  return grpcurl;
}

test.serial("grpcurl: the status of the server, a sweep and a verification", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const { grpcurl } = t.context;
  t.true((await grpcurl.call(t, "AdminService/RunSweep", {})).finished);
  t.true((await grpcurl.call(t, "AdminService/RunVerification", { collection: "" })).started);
  const status = await grpcurl.call(t, "AdminService/GetServerStatus", {});
  t.like(status, { database: { kind: "pglite" }, storage: { kind: "memory" }, clock: { status: "right" } });
  t.true(status.replicas.some((replica: { answers?: boolean }) => replica.answers === true));
  t.truthy(status.lastSweep.finishedAt);
  t.like(status.lastVerification, { actor: "user:admin" });
});

test.serial("grpcurl: objects are applied, shown, listed and deleted", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const { grpcurl, config } = t.context;
  const documents = collectionDocument("pg-main", LIMITS);
  const dry = await grpcurl.call(t, "AdminService/ApplyObjects", { documents, dry_run: true });
  t.is(dry.changes[0].action, "OBJECT_ACTION_CREATED");
  t.regex(dry.diff, /^\+kind: BackupCollection$/m);
  const applied = await grpcurl.call(t, "AdminService/ApplyObjects", { documents });
  const { file, revision } = applied.changes[0].object;
  t.is(await readFile(join(config, file), "utf8"), documents);
  const { collection } = await grpcurl.call(t, "CollectionService/GetCollection", { collection: "pg-main" });
  t.is(collection.limits.maxVersions, 2, JSON.stringify(collection.limits));

  const got = await grpcurl.call(t, "AdminService/GetObject", { kind: "BackupCollection", name: "pg-main" });
  t.is(got.document, documents);
  t.is(got.object.revision, revision);
  const json = await grpcurl.call(t, "AdminService/GetObject", {
    kind: "BackupUser",
    name: "admin",
    effective: true,
    format: "OBJECT_FORMAT_JSON",
  });
  t.is(JSON.parse(json.document).metadata.name, "admin");
  const { objects } = await grpcurl.call(t, "AdminService/ListObjects", { kind: "BackupCollection" });
  t.deepEqual(
    objects.map(({ name }: { name: string }) => name),
    ["db", "pg-main"],
  );
  const deleted = await grpcurl.call(t, "AdminService/DeleteObject", {
    kind: "BackupCollection",
    name: "pg-main",
    expected_revision: revision,
  });
  t.is(deleted.change.action, "OBJECT_ACTION_DELETED");
  await t.throwsAsync(readFile(join(config, file)), { code: "ENOENT" });
});

test.serial("grpcurl: an access key and a password are shown once, and log in", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const { grpcurl, config, server } = t.context;
  const made = await grpcurl.call(t, "AdminService/CreateAccessKey", {
    user: "admin",
    access_key: "nightly",
    collections: ["db"],
    roles: ["ROLE_BACKUP_UPLOADER"],
  });
  t.is(made.username, "admin$nightly");
  t.regex(made.password, /^[a-z2-9]{26}$/);
  const key = await loggedIn(t, server, made.username, made.password);
  const { rights } = await key.call(t, "SessionService/WhoAmI", {});
  t.deepEqual(rights, [{ collection: "db", actions: ["COLLECTION_ACTION_UPLOAD"] }]);
  t.is((await key.refused(t, "AdminService/ListObjects", {})).ErrorInfo.reason, "ACCESS_DENIED");
  const twice = { user: "admin", access_key: "nightly", collections: ["db"], roles: ["ROLE_BACKUP_UPLOADER"] };
  const forNothing = { ...twice, access_key: "idle", collections: [] };
  const { ErrorInfo } = await grpcurl.refused(t, "AdminService/CreateAccessKey", forNothing);
  t.like(ErrorInfo, { reason: "INVALID_REQUEST", metadata: { field: "collections" } });
  t.is((await grpcurl.refused(t, "AdminService/CreateAccessKey", twice)).ErrorInfo.reason, "OBJECT_EXISTS");

  const again = await grpcurl.call(t, "AdminService/SetPassword", { username: "admin$nightly" });
  t.not(again.password, made.password);
  await loggedIn(t, server, "admin$nightly", again.password);
  t.is((await key.refused(t, "SessionService/WhoAmI", {})).ErrorInfo.reason, "SESSION_INVALID");
  const given = await grpcurl.call(t, "AdminService/SetPassword", {
    username: "admin$nightly",
    password: "a password of my own",
  });
  t.is(given.password, undefined);
  await loggedIn(t, server, "admin$nightly", "a password of my own");
  const kept = [...(await filesIn(config)).values()].join("\n");
  for (const secret of [made.password, again.password, "a password of my own"])
    t.false(kept.includes(secret) || server.log().includes(secret));
  t.true(kept.includes("# Further passwords with fewer rights"), "comments stay");
});

test.serial("grpcurl: refusals have their details", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const { grpcurl } = t.context;
  const documents = collectionDocument("pg-main", `${LIMITS}, maxAge: never`);
  const invalid = await grpcurl.refused(t, "AdminService/ApplyObjects", { documents });
  t.is(invalid.ErrorInfo.reason, "OBJECTS_INVALID");
  const { findings } = invalid["type.googleapis.com/strongroom.v1.ObjectFindings"];
  t.like(findings[0], { file: "-", line: 4, path: "spec.maxAge" });
  const last = await grpcurl.refused(t, "AdminService/DeleteObject", { kind: "BackupUser", name: "admin" });
  t.is(last.ErrorInfo.reason, "NO_ADMIN_LEFT");
  const none = await grpcurl.refused(t, "AdminService/GetObject", { kind: "BackupUser", name: "nobody" });
  t.is(none.ErrorInfo.reason, "OBJECT_NOT_FOUND");
  const stale = await grpcurl.refused(t, "AdminService/ApplyObjects", {
    documents: collectionDocument("db", LIMITS),
    expected_revision: "0",
  });
  t.is(stale.ErrorInfo.reason, "CONFIGURATION_CONFLICT");
});

test.serial("grpcurl: a server that writes nothing gives the YAML to commit", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const { config, password } = t.context;
  const server = await startServerProcess(["--config", config, "--config-read-only", ...MEMORY]);
  try {
    const grpcurl = await loggedIn(t, server, "admin", password);
    const documents = collectionDocument("pg-main", LIMITS);
    const refusal = await grpcurl.refused(t, "AdminService/ApplyObjects", { documents });
    t.is(refusal.ErrorInfo.reason, "CONFIGURATION_READ_ONLY");
    t.is(refusal["type.googleapis.com/strongroom.v1.ObjectsToCommit"].objects[0].document, documents);
    const dry = await grpcurl.call(t, "AdminService/ApplyObjects", { documents, dry_run: true });
    t.regex(dry.readOnlyReason, /--config-read-only/);
    t.is(dry.toCommit[0].document, documents);
  } finally {
    await server.end("SIGTERM");
  }
});

for (const kind of ["a new file", "a file that is there"]) {
  test.serial(`a server killed between the temporary file and its place leaves ${kind} as it was`, async (t) => {
    if (!hasPeers(t, "grpcurl", "strace")) return;
    t.timeout(300_000);
    const { folder, password } = t.context;
    const config = await mkdtemp(join(folder, "killed-"));
    const adminPassword = await initConfiguration(join(config, "c"), "db");
    t.not(adminPassword, password);
    const before = await filesIn(config);
    const server = await startServerProcess(["--config", join(config, "c"), ...MEMORY]);
    const grpcurl = await loggedIn(t, server, "admin", adminPassword);
    const strace = await killedAtMove(server.child.pid!);
    const name = kind === "a new file" ? "fresh" : "db";
    const documents = collectionDocument(name, `${LIMITS}, description: changed`);
    await grpcurl.raw(
      ["-H", `Authorization: Bearer ${grpcurl.token}`, "-d", "@"],
      ["strongroom.v1.AdminService/ApplyObjects"],
      JSON.stringify({ documents }),
    );
    await server.end("SIGKILL");
    t.is(server.child.signalCode, "SIGKILL");
    if (strace.exitCode === null) await once(strace, "exit");
    const after = await filesIn(config);
    const temporary = [...after.keys()].filter((file) => /\/\.strongroom-[0-9a-f]{16}\.tmp$/.test(file));
    t.is(temporary.length, 1, "it died when the file was written and not moved");
    t.true(after.get(temporary[0]!)?.endsWith(documents));
    for (const file of temporary) after.delete(file);
    t.deepEqual(after, before);

    // It starts again as it was, and takes the change now.
    const again = await startServerProcess(["--config", join(config, "c"), ...MEMORY]);
    try {
      const next = await loggedIn(t, again, "admin", adminPassword);
      t.is((await next.call(t, "AdminService/ListObjects", { kind: "BackupCollection" })).objects.length, 1);
      await next.call(t, "AdminService/ApplyObjects", { documents });
      const { collection } = await next.call(t, "CollectionService/GetCollection", { collection: name });
      t.is(collection.description, "changed");
    } finally {
      await again.end("SIGTERM");
    }
  });
}

async function filesIn(folder: string): Promise<Map<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(await Promise.all(files.sort().map(async (file) => [file, await readFile(file, "utf8")] as const)));
}

/** Kills a process when it asks the system to give a file its name. */
async function killedAtMove(pid: number) {
  const calls = "rename,renameat,renameat2,link,linkat";
  const args = ["-f", "-p", String(pid), "-e", `trace=${calls}`, "-e", `inject=${calls}:error=EIO:signal=SIGKILL`];
  const strace = spawn(findPeer("strace")!, args, { stdio: ["ignore", "ignore", "pipe"] });
  endWithUs(strace, "SIGINT");
  await new Promise<void>((resolve, reject) => {
    let messages = "";
    strace.stderr.on("data", (chunk: Buffer) => {
      messages += chunk;
      if (messages.includes("attached")) resolve();
    });
    strace.once("close", () => reject(new Error(`strace ended: ${messages}`)));
  });
  return strace;
}
