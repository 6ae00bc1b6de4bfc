/**
 * The real server on a real S3 server, the real CLI, and the bucket read by the tools that people have: `aws`, `s3cmd`,
 * `gpg`.
 */

import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { initConfiguration, LOGIN, personEnvironment, succeeded } from "@strongroom/testkit/installation";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { type S3Peer, startS3 } from "@strongroom/testkit/peers/s3";
import { type Outcome, run, type ServerProcess, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test, { type ExecutionContext } from "ava";

const MIB = 1024 * 1024;
const PUBLIC = ["--public-key", "test.pub.asc"];
const PRIVATE = ["--private-key", "test.key.asc"];

interface Place {
  readonly dir: string;
  readonly peer: S3Peer;
  server: ServerProcess;
  password: string;
}

async function strongroom(place: Place, args: readonly string[], input: string | Uint8Array = ""): Promise<Outcome> {
  const home = join(place.dir, "home");
  const env = { ...personEnvironment(home, place.server?.url ?? ""), ...place.peer.env };
  return await run(STRONGROOM, args, { input, env, cwd: place.dir });
}

async function serve(place: Place, storage: string): Promise<ServerProcess> {
  return await startServerProcess(["--data", join(place.dir, "data"), "--storage", storage], place.peer.env);
}

async function makePlace(t: ExecutionContext, storage: (place: Place) => string): Promise<Place> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-s3-e2e-"));
  const peer = await startS3("versitygw");
  const place = { dir, peer, password: "" } as Place;
  t.teardown(async () => {
    await place.server?.end("SIGTERM");
    await peer.remove();
    await rm(dir, { recursive: true, force: true });
  });
  place.password = await initConfiguration(join(dir, "data", "config"), "db");
  await mkdir(join(dir, "home"), { mode: 0o700 });
  place.server = await serve(place, storage(place));
  await login(t, place);
  succeeded(t, await strongroom(place, ["keygen", "--name", "test", "--out-dir", dir]));
  return place;
}

async function login(t: ExecutionContext, place: Place): Promise<void> {
  succeeded(t, await strongroom(place, LOGIN, place.password));
}

/** The keys of objects in the bucket that are versions, as `aws` lists them. */
async function versionKeys(t: ExecutionContext, { peer }: Place): Promise<string[]> {
  const args = [
    "--endpoint-url",
    peer.endpoint,
    "s3api",
    "list-objects-v2",
    "--bucket",
    peer.bucket,
    "--output",
    "json",
  ];
  const { stdout } = succeeded(t, await run(findPeer("aws")!, args, { env: peer.env }));
  const { Contents } = JSON.parse(stdout.toString()) as { Contents: { Key: string }[] };
  return Contents.map(({ Key }) => Key).filter((key) => /\/collections\/.*\/[^.]+$/.test(key));
}

/** Whether the bucket has an unfinished upload that is not a probe. */
async function hasUnfinished({ peer }: Place): Promise<boolean> {
  const args = ["--endpoint-url", peer.endpoint, "s3api", "list-multipart-uploads", "--bucket", peer.bucket];
  return (await run(findPeer("aws")!, args, { env: peer.env })).stdout.includes("/collections/");
}

test.serial("backup and restore over S3, kill -9 in the middle, and the bucket read by other tools", async (t) => {
  if (!hasPeers(t, "versitygw", "aws", "s3cmd", "gpg")) return;
  const storage = ({ peer }: Place) => peer.storageUrl("strongroom");
  const place = await makePlace(t, storage);
  const { dir, peer } = place;
  t.regex(place.server.log(), /verifies payload hashes and SHA-256 checksums of parts/);
  t.notRegex(place.server.log(), new RegExp(peer.secretAccessKey));

  const dump = randomBytes(48 * MIB);
  await writeFile(join(dir, "dump"), dump);
  // The dump stops half-way until the server was killed and is back.
  const command = `head -c ${20 * MIB} dump; while [ ! -e go ]; do sleep 0.1; done; tail -c +${20 * MIB + 1} dump`;
  const listen = new URL(place.server.url).host;
  const backup = strongroom(place, ["backup", "db", ...PUBLIC, "--compress", "none", "-c", command]);
  while (!(await hasUnfinished(place))) await sleep(100);
  await place.server.end("SIGKILL");
  place.server = await startServerProcess(
    ["--data", join(dir, "data"), "--storage", storage(place), "--listen", listen],
    peer.env,
  );
  await writeFile(join(dir, "go"), "");
  succeeded(t, await backup);
  const restored = succeeded(t, await strongroom(place, ["restore", "db", ...PRIVATE]));
  t.true(restored.stdout.equals(dump));

  succeeded(t, await strongroom(place, ["download", "db", "--output", "ciphertext"]));
  const ciphertext = await readFile(join(dir, "ciphertext"));
  const keys = await versionKeys(t, place);
  t.is(keys.length, 1);
  const url = `s3://${peer.bucket}/${keys[0]}`;
  const aws = ["--endpoint-url", peer.endpoint, "s3", "cp", "--quiet", url, join(dir, "by-aws")];
  succeeded(t, await run(findPeer("aws")!, aws, { env: peer.env }));
  t.true((await readFile(join(dir, "by-aws"))).equals(ciphertext));

  const host = new URL(peer.endpoint).host;
  const s3cfg = [
    `host_base = ${host}`,
    `host_bucket = ${host}`,
    "use_https = False",
    `bucket_location = ${peer.region}`,
  ];
  const credentials = [`access_key = ${peer.accessKeyId}`, `secret_key = ${peer.secretAccessKey}`];
  await writeFile(join(dir, "s3cfg"), ["[default]", ...credentials, ...s3cfg, ""].join("\n"));
  const s3cmd = ["--config", join(dir, "s3cfg"), "--quiet", "get", url, join(dir, "by-s3cmd")];
  succeeded(t, await run(findPeer("s3cmd")!, s3cmd));
  t.true((await readFile(join(dir, "by-s3cmd"))).equals(ciphertext));

  const keyring = await mkdtemp(join(tmpdir(), "strongroom-gpg-"));
  t.teardown(async () => {
    await run("gpgconf", ["--kill", "all"], { env: { GNUPGHOME: keyring } });
    await rm(keyring, { recursive: true, force: true });
  });
  const gpg = async (...args: string[]) => succeeded(t, await run("gpg", args, { env: { GNUPGHOME: keyring } }));
  await gpg("--batch", "--import", join(dir, "test.key.asc"));
  t.true((await gpg("--batch", "--decrypt", join(dir, "by-aws"))).stdout.equals(dump));
});

test.serial("an installation moves from its directory to S3, and goes on there", async (t) => {
  if (!hasPeers(t, "versitygw")) return;
  const place = await makePlace(t, ({ dir }) => `file://${join(dir, "data", "storage")}`);
  const dump = randomBytes(20 * MIB);
  succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC, "--compress", "none"], dump));
  const from = `file://${join(place.dir, "data", "storage")}`;
  const to = place.peer.storageUrl("moved");
  const busy = await strongroom(place, ["copy-storage", "--from", from, "--to", to]);
  t.is(busy.code, 4);
  t.regex(busy.stderr, /in use by another server/);
  await place.server.end("SIGTERM");

  const copied = succeeded(t, await strongroom(place, ["copy-storage", "--from", from, "--to", to]));
  t.regex(copied.stdout.toString(), /Everything is in the target: 2 objects copied/);
  t.regex(copied.stderr, /copied .*digests verified/);
  const again = succeeded(t, await strongroom(place, ["copy-storage", "--from", from, "--to", to, "--json"]));
  t.like(JSON.parse(again.stdout.toString()), { copied: 0, present: 2, failed: 0 });
  const wrong = await strongroom(place, ["copy-storage", "--from", from, "--to", "s3://hush:hush@bucket"]);
  t.is(wrong.code, 2);
  t.notRegex(wrong.stderr, /hush/);
  t.is((await strongroom(place, ["copy-storage", "--from", from])).code, 2);

  place.server = await serve(place, to);
  await login(t, place);
  const restored = succeeded(t, await strongroom(place, ["restore", "db", ...PRIVATE]));
  t.true(restored.stdout.equals(dump));
  succeeded(t, await strongroom(place, ["backup", "db", ...PUBLIC], randomBytes(MIB)));
});
