/**
 * Several real servers on one PostgreSQL and one bucket: starting together, one finishing what another began, and a
 * database rebuilt from the bucket.
 */

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { initConfiguration } from "@strongroom/testkit/installation";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { startS3 } from "@strongroom/testkit/peers/s3";
import { run, type ServerProcess, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";
import { bearer, clientsOf, framesOf, reasonOf } from "../../server/test/support/live-server.ts";

const MIB = 1024 * 1024;
const ADMIN = "strongroom/backups.riotkit.org/v1alpha1/backupusers/admin.yaml";

test("replicas start together, finish what another began, and lose nothing with their database", async (t) => {
  if (!hasPeers(t, "postgres", "initdb", "psql", "versitygw")) return;
  const dir = await mkdtemp(join(tmpdir(), "strongroom-replicas-"));
  const postgres = await startPostgres();
  const s3 = await startS3("versitygw");
  const servers: ServerProcess[] = [];
  t.teardown(async () => {
    for (const server of servers) await server.end("SIGKILL");
    await s3.remove();
    await postgres.remove();
    await rm(dir, { recursive: true, force: true });
  });
  const config = join(dir, "config");
  const password = await initConfiguration(config, "db");
  const database = await postgres.createDatabase("strongroom");
  const environment = (url: string) => ({
    ...s3.env,
    STRONGROOM_DATABASE: url,
    STRONGROOM_STORAGE: s3.storageUrl("shared"),
    STRONGROOM_CONFIG: config,
  });
  const start = async (url: string) => {
    const server = await startServerProcess(
      ["--config-poll", "1s", "--sweep-interval", "1s", "--segment-size", "5M"],
      environment(url),
    );
    servers.push(server);
    return server;
  };
  const query = async (url: string, sql: string) => {
    const { code, stdout, stderr } = await run(findPeer("psql")!, ["-XAtq", "--dbname", url, "--command", sql]);
    t.is(code, 0, stderr);
    return stdout.toString().trim();
  };

  const [a, b, c] = (await Promise.all([start(database), start(database), start(database)])) as [
    ServerProcess,
    ServerProcess,
    ServerProcess,
  ];
  t.is(await query(database, "select count(*) from installation"), "1");
  t.is(await query(database, "select count(*) = count(distinct hash) from drizzle.__drizzle_migrations"), "t");
  const [onA, onB, onC] = [clientsOf(a.url), clientsOf(b.url), clientsOf(c.url)];

  // A session of one replica is a session of all, and ended on one it is ended on all.
  const { token } = await onA.sessions.login({ username: "admin", password });
  const revoked = (await onA.sessions.login({ username: "admin", password })).token;
  t.is((await onC.sessions.whoAmI({}, bearer(revoked))).session?.user, "admin");
  await onB.sessions.revokeSession({}, bearer(revoked));
  t.is(await reasonOf(onC.sessions.whoAmI({}, bearer(revoked))), "SESSION_INVALID");

  // Begun on one replica, sent to another, committed on the first, which dies in the middle: the store was away when it
  // was asked to complete.
  const message = openpgpMessage(12 * MIB);
  const { upload } = await onA.uploads.createUpload({ collection: "db" }, bearer(token));
  const { uploadId, segmentSizeBytes } = upload!;
  const segments = cutSegments(message, Number(segmentSizeBytes));
  t.is(segments.length, 3);
  for (const segment of segments) {
    const chunks = (async function* () {
      const [header] = await Array.fromAsync(framesOf(uploadId, segment));
      yield header!;
      for (let at = 0; at < segment.bytes.length; at += MIB)
        yield { frame: { case: "chunk" as const, value: segment.bytes.subarray(at, at + MIB) } };
    })();
    await [onA, onB][segment.index % 2]!.uploads.writeSegment(chunks, bearer(token));
  }
  await s3.stop("kill");
  const commit = { uploadId, sizeBytes: BigInt(message.length), compositeSha256: compositeOf(segments) };
  const failed = await t.throwsAsync(onA.uploads.commitUpload(commit, bearer(token)));
  t.is(ConnectError.from(failed).code, Code.Unavailable);
  t.is(await query(database, `select state from uploads where id = '${uploadId}'`), "committing");
  t.is(await a.end("SIGKILL"), null);
  await s3.start();
  const { version } = await onB.uploads.commitUpload(commit, bearer(token));
  t.is(version?.number, 1n);
  t.is((await onC.uploads.commitUpload(commit, bearer(token))).version?.number, 1n, "the same commit again");
  t.is((await onC.versions.listVersions({ collection: "db" }, bearer(token))).versions.length, 1);

  // Commands for operators, beside running servers.
  const command = async (args: string[], url = database) => {
    const { code, stdout, stderr } = await run(STRONGROOM, args, { env: environment(url), cwd: dir });
    t.is(code, 0, `${args.join(" ")}: ${stderr}`);
    return stdout.toString();
  };
  t.regex(await command(["verify", "db"]), /\b1\b/);
  t.notRegex(await command(["sweep", "--dry-run"]), /unknown: /);

  // The configuration is in force on every replica.
  const admin = await readFile(join(config, ADMIN), "utf8");
  await writeFile(join(config, ADMIN), admin.replace("deactivated: false", "deactivated: true"));
  for (const clients of [onB, onC]) {
    while ((await reasonOf(clients.sessions.whoAmI({}, bearer(token)))) !== "SESSION_INVALID") await sleep(100);
  }
  await writeFile(join(config, ADMIN), admin);
  for (const server of [b, c]) t.is(await server.end("SIGTERM"), 0);

  // The database is lost; the bucket has all it takes.
  const rebuilt = await postgres.createDatabase("rebuilt");
  t.regex(await command(["recover"], rebuilt), /Restored 1 version/);
  const d = await start(rebuilt);
  const onD = clientsOf(d.url);
  const again = bearer((await onD.sessions.login({ username: "admin", password })).token);
  const bytes: Uint8Array[] = [];
  for await (const { frame } of onD.versions.readVersion(
    { collection: "db", which: { case: "newest", value: true } },
    again,
  ))
    if (frame.case === "chunk") bytes.push(frame.value);
  t.true(Buffer.concat(bytes).equals(message));
  t.is(await d.end("SIGTERM"), 0);
});
