/** An audit log over a harness, with the tools of a thief who owns database and store. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { makeAuditKey, openAuditKey } from "../../src/adapters/audit-key/audit-key.ts";
import type { MemoryBlobStore } from "../../src/adapters/memory/memory-blob-store.ts";
import type { SqlDatabase } from "../../src/adapters/postgres/database.ts";
import { chainEvents } from "../../src/app/audit/chain.ts";
import { hexOf, type StoredHead, writeHead } from "../../src/app/audit/heads.ts";
import { pruneLog } from "../../src/app/audit/prune.ts";
import { verifyDatabase } from "../../src/app/audit/read-log.ts";
import type { AuditSigner } from "../../src/app/ports/audit-key.ts";
import { entryHash, FIRST_HASH } from "../../src/domain/audit-chain.ts";
import type { Harness } from "./harness.ts";

/** The key of all logs of a test file. */
export const signer: AuditSigner = await newSigner();

async function newSigner(): Promise<AuditSigner> {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-audit-"));
  try {
    await makeAuditKey(join(folder, "audit.key"));
    return await openAuditKey(join(folder, "audit.key"));
  } finally {
    await rm(folder, { recursive: true });
  }
}

export const DAY = 24 * 3_600_000;

/** A log over a store, with the thief's tool. */
export class Log {
  readonly h: Harness;
  readonly store: MemoryBlobStore;

  constructor(h: Harness) {
    this.h = h;
    this.store = h.deps.store as MemoryBlobStore;
  }

  get deps() {
    return { database: this.h.deps.database, store: this.store, signer };
  }

  get sql() {
    return this.h.deps.database as SqlDatabase;
  }

  async add(count: number, name = "c"): Promise<void> {
    for (let nth = 1; nth <= count; nth++)
      await this.h.deps.database.transaction(
        async (tx) =>
          await tx.audit({
            kind: "version.removed",
            actor: this.h.admin,
            collectionName: name,
            reason: 'a reason with "quotes", ümläuts and 🗝',
            details: { number: String(nth), b: "2", a: "1" },
          }),
      );
  }

  async sign(): Promise<void> {
    await chainEvents(this.h.deps.database);
    await writeHead(this.deps);
    this.h.clock.advance(60_000);
  }

  async verify(kept?: StoredHead) {
    return await verifyDatabase({ ...this.deps, keys: signer }, { kept });
  }

  /** Hashes the whole chain again, as somebody does who knows how. */
  async rehash(): Promise<void> {
    const rows = await this.sql.read(async (tx) => await tx.auditLog.chained(0n, 10_000));
    let hash = FIRST_HASH;
    let place = 0n;
    await this.sql.query(sql`update audit_events set place = -place where place is not null`);
    for (const row of rows) {
      place += 1n;
      const previous = hash;
      hash = entryHash(place, previous, row);
      await this.sql.query(
        sql`update audit_events set place = ${place}::bigint, previous_hash = decode(${hexOf(previous)}, 'hex'),
            hash = decode(${hexOf(hash)}, 'hex') where id = ${row.id}::uuid`,
      );
    }
    await this.sql.query(sql`update audit_chain set place = ${place}::bigint, hash = decode(${hexOf(hash)}, 'hex')`);
  }
}

/** Prunes all 22 rows of a filled log, up to a signed head. */
export async function prunedWhole(log: Log): Promise<void> {
  await log.sign();
  await writeHead(log.deps, { always: true });
  log.h.clock.advance(500 * DAY);
  await writeHead(log.deps, { always: true });
  await pruneLog(log.deps, 400 * DAY);
}

/** Ten rows and a head, ten more and a head, and two that no head covers. */
export async function filled(h: Harness): Promise<Log> {
  const log = new Log(h);
  await log.add(10);
  await log.sign();
  await log.add(10);
  await log.sign();
  await log.add(2);
  return log;
}
