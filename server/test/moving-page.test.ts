/**
 * docs/moving-from-backup-repository.md, followed command by command with the real program: from an installation of
 * Backup Repository, through an import that is killed, to clients that go on, the way back, and the end of it.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { collectionDocument, initConfiguration, personEnvironment, succeeded } from "@strongroom/testkit/installation";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import {
  cleanEnvironment,
  endWithUs,
  type Outcome,
  run,
  type ServerProcess,
  STRONGROOM,
  startServerProcess,
} from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type ExecutionContext } from "ava";
import { SignJWT } from "jose";
import { removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { type OldBucket, OldTables, oldBucket, openOver, removeOldBuckets } from "./support/old-installation.ts";

const test = anyTest.serial;
const MIB = 1024 * 1024;
const PAGE = fileURLToPath(new URL("../../docs/moving-from-backup-repository.md", import.meta.url));
const SECRET = "a secret of the old server";
const VERSIONS = 40;

test.after.always(async () => {
  await removeOldBuckets();
  await removeSharedCluster();
});

/** Everything that the procedure is followed with. */
interface Move {
  readonly page: string;
  readonly folder: string;
  readonly envFile: string;
  readonly bucket: OldBucket;
  readonly env: Record<string, string>;
}

/** Runs the commands of the page that stand below this heading, or below this mark. */
async function follow(t: ExecutionContext, move: Move, where: string, values: Record<string, string> = {}) {
  const at = move.page.indexOf(where);
  t.true(at >= 0, `the page has ${where}`);
  let script = /```sh\n([\s\S]+?)\n *```/.exec(move.page.slice(at))![1]!;
  for (const [word, value] of Object.entries({ "/etc/strongroom/server.env": move.envFile, ...values }))
    script = script.replaceAll(word, value);
  t.log(script.trim());
  return await bash(move, `strongroom() { "${STRONGROOM}" "$@"; }\n${script}`);
}

async function bash({ folder, env }: Move, script: string): Promise<Outcome> {
  return await run("bash", ["-e", "-o", "pipefail", "-c", script], { cwd: folder, env });
}

for (const { place, kind } of [
  { place: "directory", kind: "PGlite" },
  { place: "versitygw", kind: "PostgreSQL" },
] as const) {
  test(`${kind}, ${place}: an installation moves, and could go back`, async (t) => {
    if (!hasPeers(t, "gpg")) return;
    const [bucket, tables] = [await oldBucket(t, place), await OldTables.make(t)];
    if (bucket === undefined || tables === undefined) return;
    const folder = await temporaryFolder(t);
    const config = join(folder, "config");
    const password = await initConfiguration(config, "app");
    await writeFile(
      join(config, "strongroom/backups.riotkit.org/v1alpha1/backupcollections/app.yaml"),
      collectionDocument(
        "app",
        `filenameTemplate: 'app-\${version}.tar.gpg', maxBackupsCount: ${VERSIONS}, maxOneVersionSize: 2M, maxCollectionSize: 200M`,
      ),
    );
    const home = join(folder, "home");
    await mkdir(home, { mode: 0o700 });
    await writeFile(join(folder, "secret"), `${SECRET}\n`, { mode: 0o600 });
    const database =
      kind === "PGlite"
        ? `pglite:${join(folder, "database")}`
        : await (await sharedCluster()).peer.createDatabase(`moved_${place}`);
    const envFile = join(folder, "server.env");
    const aws = place === "directory" ? [] : ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    await writeFile(
      envFile,
      [
        `STRONGROOM_CONFIG=${config}`,
        `STRONGROOM_STORAGE=${bucket.url}`,
        `STRONGROOM_DATABASE=${database}`,
        `STRONGROOM_FROM_DATABASE=${tables.url}`,
        `STRONGROOM_OLD_TOKEN_SECRET_FILE=${join(folder, "secret")}`,
        ...aws.map((name) => `${name}=${process.env[name]}`),
      ].join("\n"),
      { mode: 0o600 },
    );
    const env = {
      ...cleanEnvironment(),
      ...personEnvironment(home, "http://127.0.0.1:1"),
      STRONGROOM_PASSWORD: password,
    };
    const move: Move = { page: await readFile(PAGE, "utf8"), folder, envFile, bucket, env };

    // What the old server has: dumps that gpg encrypted and armored.
    succeeded(t, await bash(move, `"${STRONGROOM}" keygen --name test --out-dir .`));
    const dumps = new Map<number, Buffer>();
    const ciphertexts = new Map<number, Buffer>();
    for (let number = 3; number < 3 + VERSIONS; number++) {
      const dump = randomBytes(number === 3 ? MIB : 20_000 + number);
      const sealed = await run(
        findPeer("gpg")!,
        ["--homedir", home, "--batch", "--armor", "--recipient-file", join(folder, "test.pub.asc"), "--encrypt"],
        { input: dump },
      );
      succeeded(t, sealed);
      dumps.set(number, dump);
      ciphertexts.set(number, sealed.stdout);
      const filename = `app-${number}.tar.gpg`;
      await bucket.put(`app/${filename}`, sealed.stdout);
      const size = sealed.stdout.length;
      await tables.add({ collection: "app", number, filename, size, createdAt: new Date().toISOString() });
    }
    await bucket.put(".health-1764547200000000000", Buffer.from("secret"));
    const token = await new SignJWT({ login: "admin", accessKeyName: "", operationsScope: "bnVsbA==" })
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .setExpirationTime("90d")
      .sign(Buffer.from(SECRET));
    await tables.addTokens({
      token,
      user: "admin",
      expiresAt: new Date(Date.now() + 90 * 24 * 3_600_000).toISOString(),
    });
    const before = await tables.all();

    // Days before.
    succeeded(t, await follow(t, move, "**Check the configuration.**", { "/etc/backup-repository": config }));
    const dry = await follow(t, move, "**See what would be imported.**");
    succeeded(t, dry);
    t.regex(dry.stdout.toString(), new RegExp(`app +${VERSIONS} .* 3 to ${VERSIONS + 2} +${VERSIONS + 3} `));
    t.regex(dry.stdout.toString(), /warning: app: the next backup removes 1 of 40 versions \(3\)/);
    t.regex(dry.stdout.toString(), /Would take over 1 session/);

    // The move: without the import no server starts; a killed one goes on.
    const unmoved = await t.throwsAsync(serve(move));
    t.regex(unmoved!.message, /strongroom import/);
    await killedImport(t, move, place);
    const half = await t.throwsAsync(serve(move));
    t.regex(half!.message, /run `strongroom import` with the same storage and database again/);
    const moved = await follow(t, move, "<!-- move -->");
    succeeded(t, moved);
    t.regex(moved.stdout.toString(), /40 versions|were there/);
    t.regex(moved.stdout.toString(), /0 problems, 0 unchecked/);

    let server = await serve(move);
    try {
      move.env.STRONGROOM_URL = server.url;
      const looked = await follow(t, move, "<!-- look -->", { COLLECTION: "app", KEY: "test.key.asc" });
      succeeded(t, looked);
      t.true((await readFile(join(folder, "restored"))).equals(dumps.get(VERSIONS + 2)!), "the newest opens");
      succeeded(
        t,
        await bash(move, `"${STRONGROOM}" restore app --version 3 --private-key test.key.asc --output third`),
      );
      t.true((await readFile(join(folder, "third"))).equals(dumps.get(3)!));

      // A client that exists goes on, by its old token.
      const authorization = { authorization: `Bearer ${token}` };
      const versions = `${server.url}/api/stable/repository/collection/app/version`;
      const fetched = await fetch(`${versions}/7`, { headers: authorization });
      t.is(fetched.headers.get("content-disposition"), 'attachment; filename="app-7.tar.gpg"');
      t.true(Buffer.from(await fetched.arrayBuffer()).equals(ciphertexts.get(7)!));
      const list = (await (await fetch(versions, { headers: authorization })).json()) as {
        data: { versions: { versionNumber: number; user: string }[] };
      };
      t.is(list.data.versions.length, VERSIONS);
      t.true(list.data.versions.every(({ user }) => user === "ann"));
      const posted = await fetch(versions, { method: "POST", headers: authorization, body: ciphertexts.get(5)! });
      t.is(posted.status, 200, await posted.clone().text());
      const made = (await posted.json()) as { data: { version: { versionNumber: number } } };
      t.is(made.data.version.versionNumber, VERSIONS + 3, "with the next number");
      t.is((await fetch(`${versions}/3`, { headers: authorization })).status, 404, "rotation begins with it");
    } finally {
      await server.end("SIGTERM");
    }
    succeeded(t, await bash(move, `"${STRONGROOM}" verify --env-file "${envFile}"`));

    // The way back: everything is as it was.
    t.deepEqual(await tables.all(), before);
    for (const number of dumps.keys()) t.true(await bucket.has(`app/app-${number}.tar.gpg`), `${number} is there`);

    // The old server makes one more, and another move takes it over, but for the number that both gave out.
    const more = [VERSIONS + 3, VERSIONS + 4];
    for (const number of more) {
      const filename = `app-${number}.tar.gpg`;
      await bucket.put(`app/${filename}`, ciphertexts.get(4)!);
      await tables.add({ collection: "app", number, filename, size: ciphertexts.get(4)!.length });
    }
    const again = await follow(t, move, "<!-- move -->");
    t.is(again.code, 6, again.stderr);
    t.regex(again.stdout.toString(), new RegExp(`conflict: app/app-${VERSIONS + 3}`));
    t.regex(again.stdout.toString(), new RegExp(`Imported 1 version, and ${VERSIONS} were there`));

    // Weeks after.
    succeeded(t, await follow(t, move, "<!-- finish -->"));
    server = await serve(move);
    try {
      move.env.STRONGROOM_URL = server.url;
      succeeded(
        t,
        await bash(
          move,
          `"${STRONGROOM}" login --username admin; "${STRONGROOM}" restore app --version 9 --private-key test.key.asc --output ninth`,
        ),
      );
      t.true((await readFile(join(folder, "ninth"))).equals(dumps.get(9)!));
      t.is(await bucket.has("app/app-9.tar.gpg"), place !== "directory", "only in a bucket both have one name");
    } finally {
      await server.end("SIGTERM");
    }
  });
}

async function serve({ envFile }: Move): Promise<ServerProcess> {
  return await startServerProcess(["--env-file", envFile]);
}

/** Kills an import when it has made some versions, and not all. */
async function killedImport(t: ExecutionContext, { envFile, bucket }: Move, place: string): Promise<void> {
  const child = spawn(STRONGROOM, ["import", "--env-file", envFile], { env: cleanEnvironment(), stdio: "ignore" });
  endWithUs(child, "SIGKILL");
  const ended = once(child, "exit");
  const count = await manifestsIn(t, bucket, place);
  while (child.exitCode === null && (await count()) === 0) await sleep(5);
  child.kill("SIGKILL");
  t.deepEqual(await ended, [null, "SIGKILL"], "it was killed in the middle");
}

async function manifestsIn(t: ExecutionContext, bucket: OldBucket, place: string): Promise<() => Promise<number>> {
  if (place === "directory") {
    const folder = join(fileURLToPath(bucket.url), "objects/collections/app");
    return async () => (await readdir(folder).catch(() => [])).length;
  }
  const store = await openOver(t, bucket);
  return async () => (await Array.fromAsync(store.list("collections/"))).length;
}
