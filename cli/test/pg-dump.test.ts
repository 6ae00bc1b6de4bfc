/**
 * The main job against the real world: pg_dump of a real database, through the real CLI, to a server on PostgreSQL and
 * S3, and back; and the same by hand, with nothing but the bucket and stock tools.
 */

import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { initConfiguration, personEnvironment, succeeded } from "@strongroom/testkit/installation";
import { type PostgresPeer, startPostgres } from "@strongroom/testkit/peers/postgres";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { type S3Peer, startS3 } from "@strongroom/testkit/peers/s3";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import test, { type ExecutionContext } from "ava";

const MIB = 1024 * 1024;

/** Tables of several kinds, more than 200 MiB of rows; made from a seed, half of it incompressible. */
const FILL = `
  select setseed(0.5);
  create table events (id bigint primary key, at timestamptz not null, kind text not null, payload text not null);
  insert into events select g, timestamptz '2026-01-01' + g * interval '1 second', 'kind-' || g % 17, repeat(md5(g::text), 4)
    from generate_series(1, 900000) g;
  create table documents (id int primary key, body bytea not null, tags jsonb, price numeric(12, 3));
  insert into documents select g, decode(string_agg(md5(random()::text), ''), 'hex'), jsonb_build_object('n', g, 'ü', 'ß'), g / 7.0
    from generate_series(1, 3000) g, generate_series(1, 1500) piece group by g;
  create table empty_one (id serial primary key, note text);
  create view latest as select * from events order by id desc limit 10;
  create index on events (kind, at);
  create sequence invoices start 4711;
  select nextval('invoices');`;

/** A line for each table: its name, its rows and a digest over all of them in order. */
const CHECKSUMS = ["events", "documents", "empty_one"]
  .map((t) => `select '${t}', count(*), coalesce(md5(string_agg(md5(r::text), '' order by id)), '') from ${t} r`)
  .join(" union all ")
  .concat(" union all select 'invoices', last_value, '' from invoices");

test("a database of more than 200 MiB comes back equal, through the CLI and by hand", async (t) => {
  const programs = ["postgres", "pg_dump", "pg_restore", "psql", "versitygw", "aws", "s3cmd", "gpg", "zstd"];
  if (!hasPeers(t, ...programs)) return;
  t.timeout(8 * 60_000);
  const dir = await mkdtemp(join(tmpdir(), "strongroom-pg-dump-"));
  const postgres = await startPostgres();
  const s3 = await startS3("versitygw");
  t.teardown(async () => {
    await s3.remove();
    await postgres.remove();
    await rm(dir, { recursive: true, force: true });
  });
  const app = await filled(t, postgres);
  const expected = await query(t, app, CHECKSUMS);

  const config = join(dir, "config");
  const password = await initConfiguration(config, "app");
  const server = await startServerProcess(["--config", config], {
    ...s3.env,
    STRONGROOM_DATABASE: await postgres.createDatabase("strongroom"),
    STRONGROOM_STORAGE: s3.storageUrl("main"),
  });
  t.teardown(async () => void (await server.end("SIGTERM")));
  const home = join(dir, "home");
  await mkdir(home, { mode: 0o700 });
  const env = {
    ...personEnvironment(home, server.url),
    PATH: `${folderOf("pg_dump")}:${process.env.PATH}`,
  };
  const strongroom = async (...args: string[]) =>
    succeeded(t, await run(STRONGROOM, args, { env, cwd: dir, input: args[0] === "login" ? password : "" }));

  await strongroom("login", "--username", "admin", "--password-stdin");
  await strongroom("keygen", "--name", "test");
  // The plain format, so that compression has something to do; restored by psql. The custom format by hand below.
  await strongroom("backup", "app", "--public-key", "test.pub.asc", "--min-size", "1M", "-c", `pg_dump '${app}'`);
  await strongroom(
    "backup",
    "app",
    "--public-key",
    "test.pub.asc",
    "-c",
    `pg_dump --format=custom --compress=0 '${app}'`,
  );

  const copy = await postgres.createDatabase("copy");
  const psql = `psql --quiet --set ON_ERROR_STOP=1 --single-transaction --output /dev/null '${copy}'`;
  await strongroom("restore", "app", "--version", "1", "--private-key", "test.key.asc", "-c", psql);
  t.deepEqual(await query(t, copy, CHECKSUMS), expected, "restored by the CLI");

  // By hand: the bucket, the key, and stock tools. Which object is version 2, the manifests beside the objects say.
  const listed = await aws(t, s3, "s3", "ls", "--recursive", `s3://${s3.bucket}/`);
  const keys = [...listed.matchAll(/ (\S+\.manifest\.json)$/gm)].map(([, key]) => key!);
  const manifests = await Promise.all(
    keys.map(async (key) => JSON.parse(await aws(t, s3, "s3", "cp", `s3://${s3.bucket}/${key}`, "-")) as Manifest),
  );
  t.deepEqual(manifests.map(({ number }) => number).sort(), ["1", "2"]);
  const { key, size, content_encoding } = manifests.find(({ number }) => number === "2")!;
  const objectUrl = `s3://${s3.bucket}/main/${key}`;
  await aws(t, s3, "s3", "cp", "--quiet", objectUrl, join(dir, "by-aws"));
  const [, host] = s3.endpoint.split("//");
  const s3cmdOptions = ["--config=/dev/null", `--host=${host}`, `--host-bucket=${host}`, "--no-ssl", "--no-progress"];
  succeeded(
    t,
    await run(findPeer("s3cmd")!, [...s3cmdOptions, "get", objectUrl, join(dir, "by-s3cmd")], { env: s3.env }),
  );
  t.is(String((await stat(join(dir, "by-aws"))).size), size);
  succeeded(t, await run("cmp", [join(dir, "by-aws"), join(dir, "by-s3cmd")]));

  const byHand = await postgres.createDatabase("by_hand");
  const gnupg = join(dir, "gnupg");
  await mkdir(gnupg, { mode: 0o700 });
  const steps = `set -eo pipefail
    gpg --batch --quiet --import test.key.asc
    gpg --batch --quiet --decrypt by-aws ${content_encoding === "zstd" ? "| zstd -d" : ""} | pg_restore --exit-on-error --dbname='${byHand}'`;
  succeeded(t, await run("bash", ["-c", steps], { cwd: dir, env: { ...env, GNUPGHOME: gnupg } }));
  t.deepEqual(await query(t, byHand, CHECKSUMS), expected, "restored by hand");
});

interface Manifest {
  readonly number: string;
  readonly key: string;
  readonly size: string;
  readonly content_encoding: string;
}

const folderOf = (program: string) => dirname(findPeer(program)!);

async function aws(t: ExecutionContext, s3: S3Peer, ...args: string[]): Promise<string> {
  const outcome = await run(findPeer("aws")!, ["--endpoint-url", s3.endpoint, ...args], { env: { ...s3.env } });
  return succeeded(t, outcome).stdout.toString();
}

async function query(t: ExecutionContext, database: string, sql: string): Promise<string[]> {
  const args = [
    "--no-psqlrc",
    "--quiet",
    "--tuples-only",
    "--no-align",
    "--set",
    "ON_ERROR_STOP=1",
    "--dbname",
    database,
  ];
  const outcome = await run(findPeer("psql")!, [...args, "--command", sql]);
  return succeeded(t, outcome).stdout.toString().trim().split("\n");
}

/** A database with {@link FILL} in it. */
async function filled(t: ExecutionContext, postgres: PostgresPeer): Promise<string> {
  const url = await postgres.createDatabase("app");
  await query(t, url, FILL);
  const bytes = await query(t, url, "select sum(pg_table_size(relid)) from pg_stat_user_tables");
  t.true(Number(bytes[0]) > 200 * MIB, `${bytes[0]} bytes of rows`);
  return url;
}
