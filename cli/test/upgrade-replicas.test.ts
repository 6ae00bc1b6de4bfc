/** Replicas of the last release and of this version on one PostgreSQL and one bucket, while they are upgraded. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { startPostgres } from "@strongroom/testkit/peers/postgres";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { startS3 } from "@strongroom/testkit/peers/s3";
import { run, type ServerProcess, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { unpackReleasedProgram } from "@strongroom/testkit/released";
import test from "ava";
import { bearer, clientsOf, framesOf, reasonOf } from "../../server/test/support/live-server.ts";

const MIB = 1024 * 1024;

/** The frames of a segment in chunks that a server takes. */
async function* chunked(uploadId: string, segment: ReturnType<typeof cutSegments>[number]) {
  const [header] = await Array.fromAsync(framesOf(uploadId, segment));
  yield header!;
  for (let at = 0; at < segment.bytes.length; at += MIB)
    yield { frame: { case: "chunk" as const, value: segment.bytes.subarray(at, at + MIB) } };
}

test("a replica of the last release goes on beside one of this version, and undoes nothing", async (t) => {
  if (!hasPeers(t, "postgres", "initdb", "psql", "versitygw")) return;
  const dir = await mkdtemp(join(tmpdir(), "strongroom-rolling-"));
  const postgres = await startPostgres();
  const s3 = await startS3("versitygw");
  const servers: ServerProcess[] = [];
  t.teardown(async () => {
    for (const server of servers) await server.end("SIGKILL");
    await s3.remove();
    await postgres.remove();
    await rm(dir, { recursive: true, force: true });
  });
  const released = await unpackReleasedProgram(join(dir, "released"));
  const config = join(dir, "config");
  const password = await initConfiguration(config, "db");
  const limits = "maxOneVersionSize: 100M, maxCollectionSize: 1G, encryption: any-of";
  await writeFile(join(config, "few.yaml"), collectionDocument("few", `maxBackupsCount: 2, ${limits}`));
  await writeFile(
    join(config, "kept.yaml"),
    collectionDocument("kept", `maxBackupsCount: 5, minRetention: 48h, ${limits}`),
  );
  const database = await postgres.createDatabase("strongroom");
  const environment = {
    ...s3.env,
    STRONGROOM_DATABASE: database,
    STRONGROOM_CONFIG: config,
    STRONGROOM_STORAGE: s3.storageUrl("shared"),
  };
  const start = async (program: string, sweep: string) => {
    const args = ["--segment-size", "5M", "--sweep-interval", sweep];
    const server = await startServerProcess(args, environment, undefined, program);
    servers.push(server);
    return server;
  };
  const query = async (sql: string, of = database) => {
    const { code, stdout, stderr } = await run(findPeer("psql")!, ["-XAtq", "--dbname", of, "--command", sql]);
    t.is(code, 0, stderr);
    return stdout.toString().trim();
  };

  const older = await start(released, "1s");
  const onOld = clientsOf(older.url);
  const before = bearer((await onOld.sessions.login({ username: "admin", password })).token);
  const message = openpgpMessage(12 * MIB);
  type Clients = typeof onOld;
  const begin = async (on: Clients, collection: string) => {
    const { upload } = await on.uploads.createUpload({ collection }, before);
    return { uploadId: upload!.uploadId, segments: cutSegments(message, Number(upload!.segmentSizeBytes)) };
  };
  type Begun = Awaited<ReturnType<typeof begin>>;
  const send = async (on: Clients, { uploadId, segments }: Begun, index: number) =>
    await on.uploads.writeSegment(chunked(uploadId, segments[index]!), before);
  const commit = async (on: Clients, { uploadId, segments }: Begun) => {
    const sizeBytes = BigInt(message.length);
    const { version } = await on.uploads.commitUpload(
      { uploadId, sizeBytes, compositeSha256: compositeOf(segments) },
      before,
    );
    return version!.number;
  };
  const whole = async (on: Clients, collection: string) => {
    const begun = await begin(on, collection);
    for (const { index } of begun.segments) await send(on, begun, index);
    return await commit(on, begun);
  };
  const read = async (on: Clients, collection: string, number: bigint) => {
    const bytes: Uint8Array[] = [];
    const which = { case: "number" as const, value: number };
    for await (const { frame } of on.versions.readVersion({ collection, which }, before))
      if (frame.case === "chunk") bytes.push(frame.value);
    return Buffer.concat(bytes).equals(message);
  };
  t.is(await whole(onOld, "few"), 1n);
  const early = await begin(onOld, "db");
  await send(onOld, early, 0);

  // The newer one migrates while the older one runs.
  const newer = await start(STRONGROOM, "1h");
  const onNew = clientsOf(newer.url);
  await send(onNew, early, 1);
  await send(onOld, early, 2);
  t.is(await commit(onNew, early), 1n);
  const late = await begin(onNew, "kept");
  await send(onOld, late, 0);
  await send(onNew, late, 1);
  await send(onOld, late, 2);
  t.is(await commit(onOld, late), 1n);
  t.is(await query(`select protected_for_ms from versions where collection_name = 'kept'`), String(48 * 3_600_000));

  // Sessions of one are sessions of the other, and ended on one they are ended on both.
  for (const [one, other] of [
    [onOld, onNew],
    [onNew, onOld],
  ] as const) {
    const { token } = await one.sessions.login({ username: "admin", password });
    t.is((await other.sessions.whoAmI({}, bearer(token))).session?.user, "admin");
    const { token: next } = await other.sessions.refreshSession({}, bearer(token));
    t.is((await one.sessions.whoAmI({}, bearer(next))).session?.user, "admin");
    await other.sessions.revokeSession({}, bearer(next));
    t.is(await reasonOf(one.sessions.whoAmI({}, bearer(next))), "SESSION_INVALID");
  }

  // What the newer one holds, the older one's rotation leaves, and the older one's sweeper does not write out of the manifest.
  await onNew.versions.holdVersion({ collection: "few", number: 1n, reason: "audit" }, before);
  t.is(
    await query(`update versions set manifest_revision = 0 where number = 1 and collection_name = 'few'; select 1`),
    "1",
  );
  for (let number = 2n; number <= 4n; number++) t.is(await whole(number % 2n === 0n ? onOld : onNew, "few"), number);
  const live = await onOld.versions.listVersions({ collection: "few" }, before);
  t.deepEqual(
    live.versions.map(({ number }) => number),
    [4n, 3n, 1n],
  );
  const wroteAgain = () => /wrote the manifest of a (live|removed) version again/.test(older.log());
  while (!wroteAgain()) await sleep(200);
  for (const [collection, number] of [
    ["db", 1n],
    ["kept", 1n],
    ["few", 1n],
    ["few", 4n],
  ] as const)
    for (const on of [onOld, onNew]) t.true(await read(on, collection, number));
  const sums = `select count(*) from collections c where stored_bytes <> (select coalesce(sum(size), 0) from versions v
    where v.collection_id = c.id and state = 'live') or live_versions <> (select count(*) from versions v
    where v.collection_id = c.id and state = 'live') or reserved_bytes <> (select coalesce(sum(reserved_bytes), 0)
    from uploads u where u.collection_id = c.id)`;
  t.is(await query(sums), "0");

  // The older one ends; the newer ones make the manifests whole.
  t.is(await older.end("SIGTERM"), 0);
  const swept = await run(STRONGROOM, ["sweep"], { env: environment, cwd: dir });
  t.is(swept.code, 0, swept.stderr);
  t.is(await query(`select count(*) from versions where state <> 'purged' and manifest_revision <> revision`), "0");
  t.is(await newer.end("SIGTERM"), 0);
  const rebuilt = await postgres.createDatabase("rebuilt");
  const recovered = await run(STRONGROOM, ["recover"], {
    env: { ...environment, STRONGROOM_DATABASE: rebuilt },
    cwd: dir,
  });
  t.is(recovered.code, 0, recovered.stderr);
  const held = `select held_by from versions where collection_name = 'few' and number = 1`;
  t.is(await query(held, rebuilt), "user:admin");
  const refused = await t.throwsAsync(start(released, "1h"));
  t.regex(refused!.message, /migrated by a newer version of Strongroom/);
});
