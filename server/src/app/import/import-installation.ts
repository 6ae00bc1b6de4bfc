import { InstallationMismatchError, markInstallation, storeInstallation } from "../installation.ts";
import type { BlobStore } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { OldDatabase } from "../ports/old-installation.ts";
import type { UploadSettings } from "../settings.ts";
import { UnsafeError } from "../upkeep/inventory.ts";
import { type AdoptDeps, type Adopted, adoptVersion, plannedRow } from "./adopt-version.ts";
import { importSessions, type SessionCounts } from "./import-sessions.ts";
import { type ImportPlan, type ImportProblem, type PlannedCollection, planImport } from "./plan.ts";
import { type Prospect, prospectOf } from "./prospects.ts";
import { retireVersions } from "./retire-versions.ts";

/** What {@link importInstallation} needs. */
export interface ImportDeps {
  readonly store: BlobStore;
  /** Undefined for a dry run on a store that belongs to no installation yet. */
  readonly database: Database | undefined;
  readonly old: OldDatabase | undefined;
  readonly config: ConfigSource;
  readonly settings: Pick<UploadSettings, "leastSegmentSize" | "purgeDelayMs">;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ImportProgress) => void;
}

/** How far an import is. */
export interface ImportProgress {
  readonly versions: number;
  readonly allVersions: number;
  /** Bytes read, or found to be imported already. */
  readonly bytes: bigint;
  readonly allBytes: bigint;
  /** The object that was just imported; undefined in the middle of one. */
  readonly done?: Adopted & { readonly key: string; readonly collection: string; readonly number: bigint };
}

/** What became of one collection. */
export interface ImportedCollection {
  readonly name: string;
  /** Versions that are there now, or would be. */
  readonly versions: number;
  /** Of those, how many were there before. */
  readonly present: number;
  /** Imported before, and removed now, since Backup Repository has deleted or replaced them. */
  readonly retired: number;
  readonly unchecked: number;
  /** Bytes of all of them. */
  readonly bytes: bigint;
  readonly firstNumber: bigint;
  readonly lastNumber: bigint;
  /** The number of the next backup. */
  readonly nextNumber: bigint;
  /** What the next backup meets, as the configuration is now; for a person. */
  readonly warnings: readonly string[];
}

/** What an import did, or in a dry run would do. */
export interface ImportReport {
  /** Undefined in a dry run on a store that belongs to no installation yet. */
  readonly installation: string | undefined;
  readonly collections: readonly ImportedCollection[];
  readonly problems: readonly ImportProblem[];
  /** Undefined without the old database. */
  readonly sessions: SessionCounts | undefined;
}

/** Objects that are read at a time. */
const AT_ONCE = 4;

/**
 * Makes versions of the objects that Backup Repository stored, where they lie. Each object is read once; nothing is
 * copied, changed or deleted. It may be repeated, and after it was broken off goes on with the object it was at: the
 * first import keeps servers from starting until it is complete. Nothing is rotated, and no limit refuses anything.
 * @param options.dryRun only find out what would be done; no object is read.
 * @throws UnsafeError, InstallationMismatchError when database and store do not fit. BlobStoreError
 */
export async function importInstallation(
  deps: ImportDeps,
  options: { readonly dryRun: boolean },
): Promise<ImportReport> {
  const { database, signal } = deps;
  const claim = options.dryRun || database === undefined ? undefined : await begin(database, deps.store);
  const plan = await planImport({ store: deps.store, old: deps.old, config: deps.config.current() });
  const retired = new Map<string, number>();
  if (database !== undefined)
    for (const planned of plan.collections)
      retired.set(planned.name, await retireVersions({ ...deps, database }, planned, options));
  const adopted =
    claim === undefined || database === undefined
      ? await surveyed(deps, plan)
      : await adoptAll({ ...deps, database, installation: claim.installation }, plan);
  signal.throwIfAborted();
  const sessions =
    deps.old === undefined ? undefined : await importSessions(options.dryRun ? undefined : database, deps.old);
  const collections: ImportedCollection[] = [];
  for (const planned of plan.collections)
    collections.push(await reportOf(deps, planned, adopted.outcomes, retired.get(planned.name) ?? 0));
  if (claim !== undefined && database !== undefined) {
    await noteImport(database, collections, sessions);
    if (claim.first) await database.finishImport();
  }
  return {
    installation: claim?.installation ?? (await storeInstallation(deps.store)),
    collections,
    problems: [...plan.problems, ...adopted.problems],
    sessions,
  };
}

type Outcomes = ReadonlyMap<string, Adopted>;

/** Binds database and store together, for the first import; says whether this is it. */
async function begin(database: Database, store: BlobStore): Promise<{ installation: string; first: boolean }> {
  const found = await storeInstallation(store);
  const { id, recovering } = await database.installation();
  if (found !== undefined && found !== id) {
    throw new InstallationMismatchError(
      `the store belongs to installation ${found}, the database to ${id}. Check the storage URL and the database. If ` +
        "the database was lost, rebuild it: `strongroom recover`",
    );
  }
  if (recovering) {
    throw new InstallationMismatchError(
      "the database is being rebuilt and is not complete: run `strongroom recover` with the same storage and database " +
        "first",
    );
  }
  // From here on no server starts before all is there: it could give out numbers that are in use.
  const first = await database.startImport();
  if (found === undefined && !first) {
    throw new UnsafeError(
      "the database is in use, but the store belongs to no installation; an import needs a new database, so that " +
        "nothing is mixed up. Give it another --database",
    );
  }
  if (found === undefined) await markInstallation(store, id);
  return { installation: id, first };
}

/** What would become of the versions: which are there already. */
async function surveyed({ database }: ImportDeps, plan: ImportPlan) {
  const outcomes = new Map<string, Adopted>();
  for (const { name, versions } of plan.collections)
    for (const { number, key } of versions) {
      const row =
        database === undefined
          ? undefined
          : await database.read(async (tx) => {
              const collection = await tx.collections.findByName(name);
              return collection && (await tx.versions.findByNumber(collection.id, number));
            });
      outcomes.set(key, { outcome: row?.adoptedKey === key ? "present" : "imported", unchecked: row?.unchecked ?? "" });
    }
  return { outcomes, problems: [] as ImportProblem[] };
}

async function adoptAll(deps: ImportDeps & Omit<AdoptDeps, "onBytes">, plan: ImportPlan) {
  const { database } = deps;
  const failing = new AbortController();
  const signal = AbortSignal.any([deps.signal, failing.signal]);
  // Before the first of them: what is uploaded from now on gets none of these numbers, whatever happens.
  for (const { name, lastNumber } of plan.collections)
    await database.transaction(async (tx) => {
      const { id } = await tx.collections.lockByName(name);
      await tx.collections.skipNumbers(id, lastNumber);
    });
  const queue = plan.collections.flatMap(({ name, versions }) => versions.map((version) => ({ name, version })));
  const all = { allVersions: queue.length, allBytes: queue.reduce((sum, { version }) => sum + version.size, 0n) };
  const outcomes = new Map<string, Adopted>();
  const problems: ImportProblem[] = [];
  let bytes = 0n;
  let next = 0;
  const worker = async () => {
    for (let item = queue[next++]; item !== undefined; item = queue[next++]) {
      signal.throwIfAborted();
      const { name, version } = item;
      let read = 0n;
      const onBytes = (count: number) => {
        read += BigInt(count);
        bytes += BigInt(count);
        deps.onProgress?.({ versions: outcomes.size, bytes, ...all });
      };
      const result = await adoptVersion({ ...deps, signal, onBytes }, name, version);
      if ("kind" in result) {
        problems.push(result);
        continue;
      }
      bytes += version.size - read;
      outcomes.set(version.key, result);
      const done = { ...result, key: version.key, collection: name, number: version.number };
      deps.onProgress?.({ versions: outcomes.size, bytes, ...all, done });
    }
  };
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      try {
        await worker();
      } catch (error) {
        // The others may be in the middle of large objects.
        failing.abort(error);
      }
    }),
  );
  signal.throwIfAborted();
  return { outcomes, problems };
}

async function reportOf(
  deps: ImportDeps,
  planned: PlannedCollection,
  outcomes: Outcomes,
  retired: number,
): Promise<ImportedCollection> {
  const { name } = planned;
  const there = planned.versions.filter(({ key }) => outcomes.has(key));
  const spec = deps.config.current().collections.get(name);
  const known = await deps.database?.read(async (tx) => {
    const row = await tx.collections.findByName(name);
    return row && { row, live: await tx.versions.allLive(row.id), now: tx.now };
  });
  const now = known?.now ?? new Date();
  const lastNumber =
    known !== undefined && known.row.lastNumber > planned.lastNumber ? known.row.lastNumber : planned.lastNumber;
  // What is not there yet is judged as if it were.
  const numbers = new Set(known?.live.map(({ number }) => number));
  const coming = there
    .filter(({ key, number }) => outcomes.get(key)!.outcome === "imported" && !numbers.has(number))
    .map((version) => plannedRow(version, name, spec, now));
  const prospect: Prospect | undefined =
    spec === undefined ? undefined : prospectOf(spec, [...(known?.live ?? []), ...coming], now, known?.row);
  const is = (outcome: Adopted["outcome"]) => there.filter(({ key }) => outcomes.get(key)!.outcome === outcome).length;
  return {
    name,
    versions: there.length,
    present: is("present"),
    retired,
    unchecked: there.filter(({ key }) => outcomes.get(key)!.unchecked !== "").length,
    bytes: there.reduce((sum, { size }) => sum + size, 0n),
    firstNumber: there[0]?.number ?? 0n,
    lastNumber: there.at(-1)?.number ?? 0n,
    nextNumber: lastNumber + 1n,
    warnings: prospect?.warnings ?? [
      `the configuration has no collection "${name}": it is read-only and nothing of it is removed until it has one`,
    ],
  };
}

async function noteImport(
  database: Database,
  collections: readonly ImportedCollection[],
  sessions: SessionCounts | undefined,
): Promise<void> {
  const events = collections
    .filter(({ versions, present }) => versions > present)
    .map(({ name, versions, present, unchecked, nextNumber }) => ({
      kind: "collection.imported" as const,
      actor: "operator" as const,
      collectionName: name,
      details: {
        versions: String(versions - present),
        unchecked: String(unchecked),
        last_number: String(nextNumber - 1n),
      },
    }));
  await database.transaction(async (tx) => {
    await tx.audit(...events);
    if (sessions !== undefined && sessions.imported > 0)
      await tx.audit({
        kind: "sessions.imported",
        actor: "operator",
        collectionName: "",
        details: { sessions: String(sessions.imported) },
      });
  });
}
