import { and, asc, desc, eq, gt, gte, isNotNull, isNull, lt, lte, or, sql } from "drizzle-orm";
import type { AuditRepository } from "../../app/ports/audit-log.ts";
import { FIRST_HASH } from "../../domain/audit-chain.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** The one row of the chain's state. */
const CHAIN_ID = 1;

/** The audit log over SQL. */
export function auditRepository(db: Executor): AuditRepository {
  const { auditChain, auditConfiguration, auditEvents } = schema;
  const nothing = { place: 0n, hash: FIRST_HASH, reservedSequence: 0n, headSequence: 0n, headPlace: 0n };
  return {
    async lockChain() {
      await db
        .insert(auditChain)
        .values({ id: CHAIN_ID, ...nothing })
        .onConflictDoNothing();
      return (await db.select().from(auditChain).where(eq(auditChain.id, CHAIN_ID)).for("update"))[0]!;
    },
    chain: async () => (await db.select().from(auditChain).where(eq(auditChain.id, CHAIN_ID)))[0] ?? nothing,
    async setChain(change) {
      await db.update(auditChain).set(change).where(eq(auditChain.id, CHAIN_ID));
    },
    unchained: async (limit) =>
      await db
        .select()
        .from(auditEvents)
        .where(isNull(auditEvents.place))
        .orderBy(asc(auditEvents.ordinal))
        .limit(limit),
    async link(links) {
      if (links.length === 0) return;
      const values = links.map(
        ({ id, place, previousHash, hash }) =>
          sql`(${id}::uuid, ${place}::bigint, ${hex(previousHash)}::text, ${hex(hash)}::text)`,
      );
      await db.execute(sql`update ${auditEvents}
        set place = link.place, previous_hash = decode(link.previous, 'hex'), hash = decode(link.hash, 'hex')
        from (values ${sql.join(values, sql`, `)}) as link (id, place, previous, hash)
        where ${auditEvents.id} = link.id and ${auditEvents.place} is null`);
    },
    chained: async (afterPlace, limit) =>
      await db
        .select()
        .from(auditEvents)
        .where(afterPlace === undefined ? isNotNull(auditEvents.place) : gt(auditEvents.place, afterPlace))
        .orderBy(asc(auditEvents.place))
        .limit(limit),
    at: async (place) => (await db.select().from(auditEvents).where(eq(auditEvents.place, place)))[0],
    list: async (of, beforeOrdinal, limit) =>
      await db
        .select()
        .from(auditEvents)
        .where(
          and(
            beforeOrdinal === undefined ? undefined : lt(auditEvents.ordinal, beforeOrdinal),
            of.from === undefined ? undefined : gte(auditEvents.at, of.from),
            of.before === undefined ? undefined : lt(auditEvents.at, of.before),
            of.actor === undefined ? undefined : eq(auditEvents.actor, of.actor),
            of.collectionName === undefined ? undefined : eq(auditEvents.collectionName, of.collectionName),
            of.kind === undefined ? undefined : eq(auditEvents.kind, of.kind),
          ),
        )
        .orderBy(desc(auditEvents.ordinal))
        .limit(limit),
    async after(place) {
      const [row] = await db
        .select({
          rows: sql<number>`count(*)::int`,
          oldestMs: sql<string | null>`min(extract(epoch from at) * 1000)::text`,
        })
        .from(auditEvents)
        .where(or(isNull(auditEvents.place), gt(auditEvents.place, place)));
      return { rows: row!.rows, oldestAt: row!.oldestMs === null ? null : new Date(Number(row!.oldestMs)) };
    },
    async prune(upToPlace, places) {
      const [first] = await db
        .select({ place: auditEvents.place })
        .from(auditEvents)
        .where(lte(auditEvents.place, upToPlace))
        .orderBy(asc(auditEvents.place))
        .limit(1);
      if (first === undefined) return undefined;
      const last = first.place! + BigInt(places) - 1n;
      const through = last < upToPlace ? last : upToPlace;
      const range = and(gte(auditEvents.place, first.place!), lte(auditEvents.place, through));
      const [counted] = await db.select({ rows: sql<number>`count(*)::int` }).from(auditEvents).where(range);
      await db.delete(auditEvents).where(range);
      return counted!.rows;
    },
    async placeBefore(time) {
      const [young] = await db
        .select({ place: auditEvents.place })
        .from(auditEvents)
        .where(and(isNotNull(auditEvents.place), gte(auditEvents.at, time)))
        .orderBy(asc(auditEvents.place))
        .limit(1);
      const [last] = await db
        .select({ place: auditEvents.place })
        .from(auditEvents)
        .where(isNotNull(auditEvents.place))
        .orderBy(desc(auditEvents.place))
        .limit(1);
      return young === undefined ? (last?.place ?? 0n) : young.place! - 1n;
    },
    async configuration() {
      const rows = await db.select().from(auditConfiguration);
      return new Map(rows.map(({ object, fields }) => [object, fields]));
    },
    async setConfiguration(object, fields) {
      if (fields === undefined) await db.delete(auditConfiguration).where(eq(auditConfiguration.object, object));
      else
        await db
          .insert(auditConfiguration)
          .values({ object, fields })
          .onConflictDoUpdate({ target: auditConfiguration.object, set: { fields } });
    },
  };
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
