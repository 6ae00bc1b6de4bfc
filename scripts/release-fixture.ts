/**
 * Makes `testkit/fixtures/release/` of a commit: `npm run release:fixture -- COMMIT`. Its sources go into an archive,
 * and with them, on the packages of this checkout, it makes an installation with rows of every kind.
 */
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync } from "node:fs";
import { appendFile, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { constants, zstdCompressSync } from "node:zlib";
import { PGlite } from "@electric-sql/pglite";
import { collectionDocument, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, startServerProcess } from "@strongroom/testkit/processes";
import {
  RELEASE_FOLDER,
  type ReleasedVersion,
  type ReleaseFacts,
  unpackReleasedProgram,
} from "@strongroom/testkit/released";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const WORKSPACES = ["cli", "client-sdk", "command-line", "framing", "gen", "protocol", "server"];
const KEPT = [
  "bin",
  "package.json",
  ...WORKSPACES.flatMap((name) => [`${name}/package.json`, `${name}/src`]),
  "migrations/*.sql",
  "migrations/meta/_journal.json",
];

const [given] = process.argv.slice(2);
if (given === undefined) throw new Error("expected a commit: npm run release:fixture -- COMMIT");
const git = (...args: string[]) => execFileSync("git", args, { cwd: ROOT, maxBuffer: 256 * 1024 * 1024 });
const commit = git("rev-parse", "--short=12", `${given}^{commit}`).toString().trim();
const atCommit = (path: string) => JSON.parse(git("show", `${commit}:${path}`).toString());

const place = mkdtempSync(join(tmpdir(), "strongroom-release-"));
try {
  await mkdir(RELEASE_FOLDER, { recursive: true });
  await pack("program", git("archive", "--format=tar", commit, "--", ...KEPT));
  const program = await unpackReleasedProgram(join(place, "program"));
  const { password, versions, postgresMajor } = await makeInstallation(program);
  const installation = execFileSync("tar", ["-c", "--sort=name", "-C", join(place, "kept"), "."], {
    maxBuffer: 256 * 1024 * 1024,
  });
  await pack("installation", installation);
  const { entries } = atCommit("migrations/meta/_journal.json") as { entries: { tag: string }[] };
  const packages: Record<string, string> = {};
  for (const name of WORKSPACES) {
    const { dependencies = {} } = atCommit(`${name}/package.json`) as { dependencies?: Record<string, string> };
    for (const [each, version] of Object.entries(dependencies)) {
      if (!each.startsWith("@strongroom/")) packages[each] = version;
    }
  }
  const facts: ReleaseFacts = {
    commit,
    version: (atCommit("package.json") as { version: string }).version,
    migration: entries.at(-1)!.tag,
    postgresMajor,
    packages: Object.fromEntries(Object.entries(packages).sort()),
    password,
    versions,
  };
  await writeFile(join(RELEASE_FOLDER, "release.json"), `${JSON.stringify(facts, null, 2)}\n`);
} finally {
  await rm(place, { recursive: true, force: true });
}

async function pack(name: string, archive: Uint8Array): Promise<void> {
  const params = { [constants.ZSTD_c_compressionLevel]: 22, [constants.ZSTD_c_windowLog]: 26 };
  const packed = zstdCompressSync(archive, { params });
  await writeFile(join(RELEASE_FOLDER, `${name}.tar.zst`), packed);
  console.log(`${name}.tar.zst: ${packed.length} bytes`);
}

/** An installation with versions live, held, damaged, removed and purged, and uploads in every state that stays. */
async function makeInstallation(program: string) {
  const kept = join(place, "kept");
  const data = join(kept, "data");
  const home = join(place, "home");
  await mkdir(home, { mode: 0o700 });
  const init = await run(program, ["init", join(data, "config"), "--collection", "db"]);
  const password = /password\s+(\S+)/.exec(init.stdout.toString())![1]!;
  const limits = "maxOneVersionSize: 100M, maxCollectionSize: 20G, encryption: any-of";
  await writeFile(join(data, "config/many.yaml"), collectionDocument("many", `maxBackupsCount: 100, ${limits}`));
  await writeFile(join(data, "config/few.yaml"), collectionDocument("few", `maxBackupsCount: 2, ${limits}`));
  const start = async () =>
    await startServerProcess(
      ["--data", data, "--segment-size", "1M", "--sweep-interval", "1s"],
      {},
      undefined,
      program,
    );
  let server = await start();
  const strongroom = async (args: readonly string[], input: string | Uint8Array = "") => {
    const env = personEnvironment(home, server.url);
    const outcome = await run(program, args, { input, cwd: kept, env });
    if (outcome.code !== 0) throw new Error(`${args.join(" ")} ended with ${outcome.code}: ${outcome.stderr}`);
    return outcome.stdout.toString();
  };
  await strongroom(LOGIN, password);
  await strongroom(["keygen", "--type", "age", "--name", "test", "--out-dir", kept]);
  const dumps = new Map<string, string>();
  const backup = async (collection: string, number: number) => {
    const dump = randomBytes(200 + number);
    dumps.set(`${collection}/${number}`, createHash("sha256").update(dump).digest("hex"));
    const to = ["--public-key", join(kept, "test.age.pub"), "--program", "library", "--label", `number=${number}`];
    await strongroom(["backup", collection, ...to], dump);
  };
  for (let number = 1; number <= 5; number++) await backup("few", number);
  for (let number = 1; number <= 20; number++) await backup("many", number);
  await strongroom(["rm", "many", "4", "--yes"]);
  // Uploads that ended without a version, and one that has begun.
  const call = async (method: string, body: object, token?: string) => {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const options = { method: "POST", headers, body: JSON.stringify(body) };
    const answer = await fetch(`${server.url}/strongroom.v1.${method}`, options);
    if (!answer.ok) throw new Error(`${method}: ${await answer.text()}`);
    return (await answer.json()) as { token: string; upload: { uploadId: string } };
  };
  const { token } = await call("SessionService/Login", { username: "admin", password });
  const create = async () => (await call("UploadService/CreateUpload", { collection: "db" }, token)).upload.uploadId;
  await call("UploadService/AbortUpload", { uploadId: await create() }, token);
  const overdue = await create();
  await server.end("SIGTERM");

  const postgresMajor = await change(data, [
    `update versions set purge_after = now() - interval '1 hour' where collection_name = 'few' and number < 3`,
    `update versions set held = true, hold_reason = 'audit', revision = revision + 1 where collection_name = 'many' and number = 7`,
    `update uploads set expires_at = now() - interval '1 hour' where id = '${overdue}'`,
  ]);
  const spoiled = await keyOf(data, "many", 9);
  await appendFile(join(data, "storage/objects", spoiled), "more");
  server = await start();
  while (!hasSwept(server.log(), 4)) await sleep(200);
  await create();
  await server.end("SIGTERM");
  await run(program, ["verify", "many", "--data", data]);
  const versions = await rowsOf<ReleasedVersion>(
    data,
    `select collection_name as collection, number::int, state, held, damage <> '' as damaged from versions order by 1, 2`,
  );
  return {
    password,
    postgresMajor,
    versions: versions.map((row) => ({ ...row, sha256: dumps.get(`${row.collection}/${row.number}`)! })),
  };
}

/** Whether the log says that so many removed versions and uploads are gone. */
function hasSwept(log: string, least: number): boolean {
  return (log.match(/sweeper: (deleted a removed version|an upload expired|freed the store)/g) ?? []).length >= least;
}

async function opened<T>(data: string, work: (database: PGlite) => Promise<T>): Promise<T> {
  const database = await PGlite.create({ dataDir: join(data, "database/data") });
  try {
    return await work(database);
  } finally {
    await database.close();
  }
}

async function rowsOf<R>(data: string, query: string): Promise<R[]> {
  return await opened(data, async (database) => (await database.query<R>(query)).rows);
}

async function change(data: string, statements: readonly string[]): Promise<number> {
  return await opened(data, async (database) => {
    for (const statement of statements) await database.exec(statement);
    const { rows } = await database.query<{ version: number }>(
      "select current_setting('server_version_num')::int / 10000 as version",
    );
    return rows[0]!.version;
  });
}

async function keyOf(data: string, collection: string, number: number): Promise<string> {
  const query = `select key from versions where collection_name = '${collection}' and number = ${number}`;
  return (await rowsOf<{ key: string }>(data, query))[0]!.key;
}
