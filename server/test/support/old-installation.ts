/**
 * An installation of Backup Repository without its program: a database with the tables that its Go structs become, made
 * by SQL, and objects laid out as the Go CDK lays them out.
 */
import { createHash, randomUUID } from "node:crypto";
import { access, mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { DeleteObjectCommand, HeadObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { type S3Peer, type S3PeerName, startS3 } from "@strongroom/testkit/peers/s3";
import type { ExecutionContext } from "ava";
import postgres from "postgres";
import { createS3Client } from "../../src/adapters/s3/s3-client.ts";
import { parseS3 } from "../../src/adapters/s3/s3-location.ts";
import { openStore, parseStorage } from "../../src/adapters/stores.ts";
import type { BlobStore } from "../../src/app/ports/blob-store.ts";
import { type DatabaseKind, POSTGRES_PROGRAMS, sharedCluster } from "./databases.ts";
import { useCredentials } from "./s3-tools.ts";

/**
 * What GORM 1.23 makes of `UploadedVersion`, `GrantedAccess` and `Lock` (`pkg/storage/entity.go`,
 * `pkg/security/model.go`, `pkg/concurrency/locking.go`) on PostgreSQL.
 */
const TABLES = `
  create table granted_accesses (created_at timestamptz, updated_at timestamptz, deleted_at timestamptz, id text,
    expires_at timestamptz, deactivated boolean, description text, requester_ip text, "user" text, access_key_name text,
    primary key (id));
  create index idx_granted_accesses_deleted_at on granted_accesses (deleted_at);
  create table uploaded_versions (id text, collection_id text, version_number bigint, filename text, filesize bigint,
    uploaded_by_session_id text, uploader text, created_at timestamptz, updated_at timestamptz, deleted_at timestamptz,
    primary key (id));
  create index idx_uploaded_versions_deleted_at on uploaded_versions (deleted_at);
  create table locks (id text, expires timestamptz, primary key (id))`;

/** A row of `uploaded_versions`. */
export interface OldRow {
  readonly id?: string;
  readonly collection: string;
  readonly number: number;
  readonly filename: string;
  readonly size: number;
  readonly session?: string;
  readonly uploader?: string;
  readonly createdAt?: string;
  readonly deletedAt?: string;
}

/** A row of `granted_accesses`. */
export interface OldToken {
  readonly token: string;
  readonly user: string;
  readonly accessKey?: string;
  readonly createdAt?: string;
  readonly expiresAt: string;
  readonly deactivated?: boolean;
  readonly deletedAt?: string;
}

/** The hash by which Backup Repository knows a token. */
export const hashOf = (token: string) => createHash("sha256").update(token).digest("hex");

/** The old database. */
export class OldTables {
  readonly url: string;
  readonly #sql: postgres.Sql;

  private constructor(url: string) {
    this.url = url;
    this.#sql = postgres(url, { max: 1, onnotice: () => {} });
  }

  /** A new database on the cluster of this test process; undefined, loudly, where PostgreSQL is not installed. */
  static async make(t: ExecutionContext): Promise<OldTables | undefined> {
    if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return undefined;
    const { peer } = await sharedCluster();
    const tables = new OldTables(await peer.createDatabase(`old_${randomUUID().replaceAll("-", "")}`));
    t.teardown(async () => await tables.#sql.end());
    await tables.#sql.unsafe(TABLES);
    return tables;
  }

  async add(...rows: readonly OldRow[]): Promise<void> {
    for (const row of rows) {
      const at = row.createdAt ?? "2025-12-01T00:00:00Z";
      await this.#sql`insert into uploaded_versions values (${row.id ?? randomUUID()}, ${row.collection}, ${row.number},
        ${row.filename}, ${row.size}, ${row.session ?? "s"}, ${row.uploader ?? "ann"}, ${at}, ${at},
        ${row.deletedAt ?? null})`;
    }
  }

  async addTokens(...tokens: readonly OldToken[]): Promise<void> {
    for (const token of tokens) {
      const at = token.createdAt ?? "2025-12-01T00:00:00Z";
      await this.#sql`insert into granted_accesses values (${at}, ${at}, ${token.deletedAt ?? null},
        ${hashOf(token.token)}, ${token.expiresAt}, ${token.deactivated ?? false}, 'Login', '192.0.2.1', ${token.user},
        ${token.accessKey ?? ""})`;
    }
  }

  /** What the old server did meanwhile. */
  async run(statement: string): Promise<void> {
    await this.#sql.unsafe(statement);
  }

  /** Everything in it, to see that nothing was changed. */
  async all(): Promise<unknown> {
    return [
      await this.#sql`select * from uploaded_versions order by id`,
      await this.#sql`select * from granted_accesses order by id`,
      await this.#sql`select * from locks order by id`,
    ];
  }
}

/** Where the old server kept its objects. */
export interface OldBucket {
  /** Storage URL, for the new server too. */
  readonly url: string;
  /** Stores an object as the old server did. */
  put(key: string, bytes: Uint8Array, at?: Date): Promise<void>;
  /** Whether the old server still finds an object. */
  has(key: string): Promise<boolean>;
  /** Takes an object away as the old server does. */
  delete(key: string): Promise<void>;
}

/** Kinds of places, each with the database that the new server is tested with on it. */
export const PLACES = [
  { place: "directory", database: "PGlite" },
  { place: "versitygw", database: "PostgreSQL" },
  { place: "minio", database: "PostgreSQL" },
] as const satisfies readonly { place: "directory" | S3PeerName; database: DatabaseKind }[];

const peers = new Map<S3PeerName, Promise<S3Peer>>();

/** Ends the S3 servers of this test process. For `test.after.always`. */
export async function removeOldBuckets(): Promise<void> {
  for (const peer of peers.values()) await (await peer.catch(() => undefined))?.remove();
}

/** A new, empty place; undefined, loudly, where its server is not installed. */
export async function oldBucket(t: ExecutionContext, place: "directory" | S3PeerName): Promise<OldBucket | undefined> {
  if (place === "directory") return await oldDirectory(t);
  if (!hasPeers(t, place)) return undefined;
  const starting = peers.get(place) ?? startS3(place);
  peers.set(place, starting);
  const peer = await starting;
  useCredentials(peer);
  const location = parseS3(peer.storageUrl(randomUUID()));
  const client = await createS3Client({ ...location, silenceMs: 60_000 });
  t.teardown(() => client.destroy());
  const named = (key: string) => ({ Bucket: location.bucket, Key: location.prefix + key });
  return {
    url: `s3://${location.bucket}/${location.prefix.slice(0, -1)}?endpoint=${encodeURIComponent(peer.endpoint)}&region=${peer.region}&s3ForcePathStyle=true`,
    async put(key, bytes) {
      await client.send(new PutObjectCommand({ ...named(key), Body: bytes, ContentLength: bytes.length }));
    },
    has: async (key) =>
      await client.send(new HeadObjectCommand(named(key))).then(
        () => true,
        () => false,
      ),
    async delete(key) {
      await client.send(new DeleteObjectCommand(named(key)));
    },
  };
}

async function oldDirectory(t: ExecutionContext): Promise<OldBucket> {
  const root = await mkdtemp(join(tmpdir(), "strongroom-old-"));
  t.teardown(async () => await rm(root, { recursive: true, force: true }));
  return {
    url: `file://${root}`,
    async put(key, bytes, at) {
      const path = join(root, key);
      await mkdir(dirname(path), { recursive: true });
      // As `fileblob` does: a new file takes the place of the old one.
      await rm(path, { force: true });
      await writeFile(path, bytes);
      await writeFile(`${path}.attrs`, '{"user.content_type":"application/octet-stream"}');
      if (at !== undefined) await utimes(path, at, at);
    },
    has: async (key) =>
      await access(join(root, key)).then(
        () => true,
        () => false,
      ),
    async delete(key) {
      await rm(join(root, key));
      await rm(`${join(root, key)}.attrs`);
    },
  };
}

/** Opens the store of the new server over an old bucket; closed at the end of the test. */
export async function openOver(t: ExecutionContext, { url }: OldBucket): Promise<BlobStore> {
  const store = await openStore(parseStorage(url), { info() {} });
  t.teardown(async () => await store.close());
  return store;
}
