import {
  and,
  asc,
  count,
  desc,
  eq,
  getTableColumns,
  gt,
  inArray,
  isNull,
  lt,
  lte,
  max,
  min,
  notInArray,
  or,
  type SQL,
  sql,
  sum,
} from "drizzle-orm";
import type { AnyPgColumn } from "drizzle-orm/pg-core";
import {
  LIVE_VERSION_FIELDS,
  type LiveVersionRepository,
  type LostUpload,
  type Place,
  TOLD_OF,
  type WantedFacts,
} from "../../app/ports/live-versions.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import { FEW, NO_VERSIONS, type SomeVersions } from "../../domain/health.ts";
import { GONE } from "../../domain/store-health.ts";
import type { Executor } from "./repositories.ts";
import { rowsOf } from "./rows.ts";
import * as schema from "./schema.ts";

const { collections, uploads, versions } = schema;

/** What is looked at by its number, the newest of a collection. */
const NUMBERS_LOOKED_AT = 1000;

/** The columns of what rotation and quota need of a version. */
export function liveColumns(table: typeof versions) {
  const columns = getTableColumns(table);
  return Object.fromEntries(LIVE_VERSION_FIELDS.map((field) => [field, columns[field]])) as Pick<
    typeof columns,
    (typeof LIVE_VERSION_FIELDS)[number]
  >;
}

const live = (collectionId: string | AnyPgColumn) =>
  and(eq(versions.collectionId, collectionId), eq(versions.state, "live"));
const asInstant = (date: Date) => sql`${date.toISOString()}::timestamptz`;

/** As `isShrunk` says it, in the same arithmetic; the quotient is what the index `versions_shrinking` knows. */
function isShrunk(factor: number): SQL {
  // A little more than the bound, so that rounding leaves none out: the exact condition is beside it.
  const bound = (1 / factor) * (1 + 1e-9);
  return sql`(${versions.confirmedAt} is null and ${versions.usualSize} > 0
    and (${versions.size}::float8 / ${versions.usualSize}) < ${bound}::float8
    and ${versions.size}::float8 * ${factor}::float8 < ${versions.usualSize}::float8)`;
}

const numberedTime = { number: versions.number, begunAt: versions.begunAt };

/** As `isRemovalBlocked` says it of a version `withProtection`. */
function isBlocked(now: Date, minRetentionMs: number | undefined): SQL {
  const forMs = sql`coalesce(${versions.protectedForMs}, 0)`;
  const since = sql`coalesce(${versions.protectedUntil} - ${forMs} * interval '1 millisecond', ${versions.committedAt})`;
  const until =
    minRetentionMs === undefined
      ? sql`${versions.protectedUntil}`
      : sql`${since} + greatest(${forMs}, ${minRetentionMs}::bigint) * interval '1 millisecond'`;
  return sql`(${versions.held} or ${until} > ${asInstant(now)})`;
}

/** Questions about live versions over SQL; `server/test/growth.test.ts` looks at their plans. */
export function liveVersionRepository(db: Executor): LiveVersionRepository {
  const columns = liveColumns(versions);
  const select = (where: SQL | undefined) => db.select(columns).from(versions).where(where);
  const except = (ids: readonly string[]) => (ids.length === 0 ? undefined : notInArray(versions.id, [...ids]));
  const numberAt = (collectionId: string, { place, from }: Place, exceptIds: readonly string[]) =>
    db
      .select({ number: versions.number })
      .from(versions)
      .where(and(live(collectionId), except(exceptIds)))
      .orderBy(from === "lowest" ? asc(versions.number) : desc(versions.number))
      .offset(place)
      .limit(1);
  return {
    newest: async (collectionId, limit) => await select(live(collectionId)).orderBy(desc(versions.number)).limit(limit),
    newestNotShrunk: async (collectionId, shrunkFactor, limit) =>
      await select(and(live(collectionId), sql`${isShrunk(shrunkFactor)} is not true`))
        .orderBy(desc(versions.number))
        .limit(limit),
    async unusual(collectionId, { maxOneVersionSize }, least, shrunkFactor) {
      const sumWhere = (of: SQL, where: SQL | undefined) =>
        sql<string>`(select coalesce(sum(${of}), 0)::text from ${versions} where ${and(live(collectionId), where)})`;
      const damaged = select(and(live(collectionId), sql`${versions.damage} <> ''`));
      // Each part looks into an index of its own.
      const found =
        shrunkFactor === undefined
          ? damaged.as("odd")
          : damaged.union(select(and(live(collectionId), isShrunk(shrunkFactor)))).as("odd");
      const odd = Object.fromEntries(
        LIVE_VERSION_FIELDS.map((field) => [field, found[field]]),
      ) as unknown as typeof columns;
      const rows = await db
        .select({
          above: sumWhere(sql`${versions.size} - ${maxOneVersionSize}::bigint`, gt(versions.size, maxOneVersionSize)),
          below:
            least > 0n
              ? sumWhere(sql`${least}::bigint - ${versions.size}`, lt(versions.size, least))
              : sql<string>`'0'`,
          odd,
        })
        .from(sql`(select 1) as always`)
        .leftJoin(found, sql`true`);
      const [{ above, below }] = rows as [(typeof rows)[0]];
      // Where there is none, its columns are null.
      const some = rows.flatMap((row) => (row.odd?.id == null ? [] : [row.odd]));
      return { above: BigInt(above), below: BigInt(below), odd: some };
    },
    async notable(collectionId, { maxOneVersionSize }, beyond) {
      const [newest] = await select(live(collectionId)).orderBy(desc(versions.number)).limit(1);
      const few = async (kind: SQL, since: typeof versions.committedAt | typeof versions.damagedAt) => {
        const where = and(live(collectionId), kind);
        // By a term, so that PostgreSQL does not go through all versions in this order to find the few that fit.
        const rows = await select(where).orderBy(sql`${versions.number} + 0 desc`).limit(TOLD_OF);
        const aggregates = {
          count: count(),
          since: min(since),
          largest: max(versions.size),
          begunAt: min(versions.begunAt),
        };
        const [all] = rows.length === 0 ? [] : await db.select(aggregates).from(versions).where(where);
        return { few: rows, count: all?.count ?? 0, since: all?.since ?? undefined, all };
      };
      const unreadable = eq(versions.damageReason, "unreadable");
      const damaged = sql`${versions.damage} <> ''`;
      const { all: large, ...above } = await few(gt(versions.size, maxOneVersionSize), versions.committedAt);
      const { all: late, ...ahead } = await few(sql`${versions.begunAt} > ${asInstant(beyond)}`, versions.committedAt);
      const { all: _, ...broken } = await few(sql`${damaged} and not ${unreadable}`, versions.damagedAt);
      const { all: __, ...closed } = await few(sql`${damaged} and ${unreadable}`, versions.damagedAt);
      return {
        newest,
        above,
        largest: large?.largest ?? 0n,
        damaged: broken,
        unreadable: closed,
        beyond: { ...ahead, since: undefined },
        beyondFrom: late?.begunAt ?? undefined,
      };
    },
    numberAt: async (collectionId, at, exceptIds) => (await numberAt(collectionId, at, exceptIds))[0]?.number,
    dated: async (collectionId, upTo, exceptIds) =>
      await db
        .select(numberedTime)
        .from(versions)
        .where(and(live(collectionId), upTo === undefined ? undefined : lte(versions.number, upTo), except(exceptIds)))
        .orderBy(desc(versions.number)),
    async datedAbove(collectionId, above, now, exceptIds) {
      const known = sql`${versions.begunAt} <= ${asInstant(now)}`;
      const rows = await db
        .select(numberedTime)
        .from(versions)
        .where(and(live(collectionId), gt(versions.number, above), known, except(exceptIds)))
        .orderBy(asc(versions.number))
        .limit(1);
      return rows[0];
    },
    byNumbers: async (collectionId, numbers) =>
      numbers.length === 0
        ? []
        : await select(and(live(collectionId), sql`${versions.number} = any(${`{${numbers.join()}}`}::bigint[])`)),
    free: async (collectionId, below, now, exceptIds) =>
      await select(
        and(
          live(collectionId),
          below === undefined
            ? undefined
            : sql`${versions.number} < ${typeof below === "bigint" ? below : numberAt(collectionId, below, exceptIds)}`,
          eq(versions.held, false),
          or(isNull(versions.protectedUntil), sql`${versions.protectedUntil} <= ${asInstant(now)}`),
          except(exceptIds),
        ),
      ),
    async rotatedTogether(collectionId, since) {
      const rows = await db.execute<{ count: string }>(sql`
        select coalesce(sum(greatest(went.count - 1, 0)), 0)::text as count
        from ${versions} as publisher, lateral (
          select count(*) as count from ${versions} as victim
          where victim.removed_by <> '' and victim.removed_by = publisher.id::text) as went
        where publisher.collection_id = ${collectionId}::uuid and publisher.committed_at > ${asInstant(since)}
          and publisher.number > (select last_number - ${NUMBERS_LOOKED_AT}::int from ${collections}
            where id = ${collectionId}::uuid)`);
      return Number(rowsOf(rows)[0]!.count);
    },
    async anyBlocked(collectionId, now, minRetentionMs) {
      const rows = await db
        .select({ id: versions.id })
        .from(versions)
        .where(and(live(collectionId), isBlocked(now, minRetentionMs)))
        .limit(1);
      return rows.length > 0;
    },
    async sumOf(collectionId, organization) {
      const [sums] = await db
        .select({ versions: count(), bytes: sum(versions.size), lastNumber: max(versions.number) })
        .from(versions)
        .where(and(live(collectionId), eq(versions.organization, organization)));
      const { bytes, lastNumber } = sums!;
      return { versions: BigInt(sums!.versions), bytes: BigInt(bytes ?? 0), lastNumber: lastNumber ?? 0n };
    },
    blockedOf: async (collectionId, organization, now, minRetentionMs) =>
      (
        await select(
          and(live(collectionId), eq(versions.organization, organization), isBlocked(now, minRetentionMs)),
        ).limit(1)
      )[0],
    listOf: async (collectionId, organization, upTo, limit) =>
      await select(and(live(collectionId), eq(versions.organization, organization), lte(versions.number, upTo)))
        .orderBy(desc(versions.number))
        .limit(limit),
    async facts(wanted, now) {
      if (wanted.length === 0) return new Map();
      const rows = await factsQuery(db, wanted, now);
      return new Map(
        rows.map(({ newest, places, overfullSince, shrunkSince, ...row }) => [
          row.name,
          {
            ...row,
            ...places,
            newest: newest?.number == null ? undefined : newest,
            overfullSince: overfullSince ?? undefined,
            shrunkSince: shrunkSince ?? undefined,
          },
        ]),
      );
    },
  };
}

/**
 * One row for each collection, whatever it has: every lateral part looks at one collection through an index. The limits
 * come as a list, since they are those of the configuration.
 */
function factsQuery(db: Executor, wanted: readonly WantedFacts[], now: Date) {
  // Arrays, of which PostgreSQL expects few elements, so that it looks each collection up by its name.
  const names = `{${wanted.map(({ name }) => `"${name.replace(/["\\]/g, "\\$&")}"`).join()}}`;
  const list = (of: (collection: WantedFacts) => bigint | number | undefined) =>
    `{${wanted.map((each) => String(of(each) ?? "null")).join()}}`;
  const asked = sql`unnest(${names}::text[], ${list((each) => each.maxOneVersionSize)}::bigint[],
    ${list((each) => each.maxCollectionSize)}::bigint[], ${list((each) => each.shrunkFactor)}::float8[]) as asked(name, soft, hard, factor)`;
  const newest = db
    .select({
      number: versions.number,
      size: versions.size,
      begunAt: versions.begunAt,
      committedAt: versions.committedAt,
      userName: versions.userName,
      accessKey: versions.accessKey,
      damage: versions.damage,
      damagedAt: versions.damagedAt,
      usualSize: versions.usualSize,
      confirmedAt: versions.confirmedAt,
    })
    .from(versions)
    .where(live(collections.id))
    .orderBy(desc(versions.number))
    .limit(1)
    .as("newest");
  const some = (where: SQL, since: SQL) => {
    const fit = sql`from ${versions} where ${and(live(collections.id), where)}`;
    return sql`case when exists (select 1 ${fit}) then (select json_build_object('count', count(*), 'since', min(${since}), 'few', (
        select json_agg(few) from (select ${versions.number}::text as number, ${versions.size}::text as size, ${versions.begunAt} as begun_at,
          ${versions.committedAt} as committed_at, ${versions.damagedAt} as damaged_at, ${versions.damage} as damage
          ${fit} order by ${versions.number} desc limit ${sql.raw(String(FEW))}) few)) ${fit})::text else '' end`.mapWith(
      someVersions,
    ) as SQL<SomeVersions>;
  };
  const never = sql`null::timestamptz`;
  // Looked for only where there is something to find.
  const overfullSince = sql`case when ${collections.storedBytes} > asked.hard then (
      select committed_at from (select ${versions.committedAt} as committed_at, ${versions.number} as number,
          sum(${versions.size}) over (order by ${versions.number}) as so_far from ${versions} where ${live(collections.id)}) summed
      where so_far > asked.hard order by number limit 1) end`.mapWith(versions.committedAt) as SQL<Date | null>;
  const shrunk = sql`(${versions.confirmedAt} is null and ${versions.usualSize} > 0
      and ${versions.size}::float8 * asked.factor < ${versions.usualSize}::float8)`;
  const shrunkSince =
    sql`case when asked.factor is not null and (select ${shrunk} from ${versions} where ${live(collections.id)}
      order by ${versions.number} desc limit 1) then (select ${versions.committedAt} from ${versions} where ${live(collections.id)}
        and ${versions.number} > coalesce((select ${versions.number} from ${versions} where ${live(collections.id)} and ${shrunk} is not true
          order by ${versions.number} desc limit 1), 0)
        order by ${versions.number} limit 1) end`.mapWith(versions.committedAt) as SQL<Date | null>;
  const beyond = asInstant(new Date(now.getTime() + CLOCK_SLACK_MS));
  const holding = sql`from ${uploads} where ${uploads.collectionId} = ${collections.id}
    and (${uploads.state} in ('open', 'committing') or ${uploads.reservedBytes} > 0)`;
  const places = sql`(select json_build_object(
      'open', count(*) filter (where ${uploads.state} = 'open' and not ${uploads.lapsed}),
      'lost', json_agg(json_build_object('id', ${uploads.id}, 'number', ${uploads.versionNumber}::text, 'bytes', ${uploads.reservedBytes}::text,
        'since', ${uploads.lostSince})) filter (where ${uploads.state} = 'committing' and ${uploads.lostSince} is not null))
      ${holding})::text`.mapWith(placesOf) as SQL<ReturnType<typeof placesOf>>;
  const { id, name, storedBytes, reservedBytes, trashBytes, liveVersions, rolledBackAt, addedVersions, frozenSince } =
    collections;
  const { countedBytes, confirmedPolicy, policyHeldSince } = collections;
  return db
    .select({
      id,
      name,
      storedBytes,
      reservedBytes,
      trashBytes,
      liveVersions,
      rolledBackAt,
      addedVersions,
      frozenSince,
      countedBytes,
      confirmedPolicy,
      policyHeldSince,
      newest: {
        number: newest.number,
        size: newest.size,
        begunAt: newest.begunAt,
        committedAt: newest.committedAt,
        userName: newest.userName,
        accessKey: newest.accessKey,
        damage: newest.damage,
        damagedAt: newest.damagedAt,
        usualSize: newest.usualSize,
        confirmedAt: newest.confirmedAt,
      },
      above: some(sql`${versions.size} > asked.soft`, sql`${versions.committedAt}`),
      damaged: some(sql`${versions.damage} <> ''`, sql`${versions.damagedAt}`),
      beyond: some(sql`${versions.begunAt} > ${beyond}`, never),
      // The first condition says it for the index.
      gone: some(
        sql`${versions.damage} <> '' and ${inArray(versions.damageReason, [...GONE])}`,
        sql`${versions.damagedAt}`,
      ),
      withoutManifest: some(sql`${versions.manifestRevision} = 0`, never),
      overfullSince,
      shrunkSince,
      places,
    })
    .from(collections)
    .innerJoin(asked, sql`asked.name = ${collections.name}`)
    .leftJoinLateral(newest, sql`true`);
}

/** Of text, since a mapping is not asked about null. */
function someVersions(text: string): SomeVersions {
  if (text === "") return NO_VERSIONS;
  const { count, since, few } = JSON.parse(text) as {
    count: number;
    since: string | null;
    few: readonly (Record<"number" | "size" | "begun_at" | "committed_at" | "damage", string> & {
      damaged_at: string | null;
    })[];
  };
  return {
    count,
    since: since === null ? undefined : new Date(since),
    few: few.map(({ number, size, begun_at, committed_at, damaged_at, damage }) => ({
      number: BigInt(number),
      size: BigInt(size),
      begunAt: new Date(begun_at),
      committedAt: new Date(committed_at),
      damagedAt: damaged_at === null ? null : new Date(damaged_at),
      damage,
      usualSize: null,
      confirmedAt: null,
    })),
  };
}

function placesOf(text: string): { readonly openUploads: number; readonly lost: readonly LostUpload[] } {
  const { open, lost } = JSON.parse(text) as {
    open: number;
    lost: readonly { id: string; number: string | null; bytes: string; since: string }[] | null;
  };
  return {
    openUploads: open,
    lost: (lost ?? []).map(({ id, number, bytes, since }) => ({
      id,
      versionNumber: number === null ? null : BigInt(number),
      reservedBytes: BigInt(bytes),
      lostSince: new Date(since),
    })),
  };
}
