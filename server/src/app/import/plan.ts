/* What an import makes of an installation of Backup Repository, found out without reading one object. */
import type { Configuration } from "../../domain/configuration.ts";
import { foreignName, foreignNumber } from "../../domain/object-keys.ts";
import type { BlobAdopter, ForeignBlob } from "../ports/blob-store.ts";
import type { OldDatabase, OldVersion } from "../ports/old-installation.ts";

/** Something that is not imported, or not as it should be, and why; for a person. */
export interface ImportProblem {
  readonly kind: "missing" | "left alone" | "unreadable" | "conflict";
  readonly key: string;
  readonly why: string;
}

/** A version that is to be imported. */
export interface PlannedVersion {
  readonly number: bigint;
  /** Of its object. */
  readonly key: string;
  readonly filename: string;
  /** Bytes, as the store lists it. */
  readonly size: bigint;
  /** When it was stored, by the old database; else by the store. */
  readonly at: Date;
  /** What the old database says; undefined without one. */
  readonly old: OldVersion | undefined;
}

/** What is to be imported of one collection. */
export interface PlannedCollection {
  readonly name: string;
  /** Lowest number first. */
  readonly versions: readonly PlannedVersion[];
  /** Numbers go on after this one. */
  readonly lastNumber: bigint;
}

/** A whole installation. */
export interface ImportPlan {
  readonly collections: readonly PlannedCollection[];
  readonly problems: readonly ImportProblem[];
}

/** What {@link planImport} looks at. */
export interface PlanDeps {
  readonly store: BlobAdopter;
  readonly config: Pick<Configuration, "collections">;
  /** Undefined when it is not there any more: then numbers come from names, and times from the store. */
  readonly old: OldDatabase | undefined;
}

/** A name that can be part of a key. */
const USABLE_NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$/;

/**
 * Finds the versions of Backup Repository: their objects by the list of the store; their numbers, times and uploaders by
 * its database, else the numbers by the names that the template of the collection makes. What cannot be a version for
 * sure is named as a problem and left alone.
 */
export async function planImport({ store, config, old }: PlanDeps): Promise<ImportPlan> {
  const objects = new Map<string, Map<string, ForeignBlob>>();
  for await (const blob of store.listForeign()) {
    const name = foreignName(blob.key);
    if (name === undefined) continue;
    const of = objects.get(name.collection) ?? new Map<string, ForeignBlob>();
    objects.set(name.collection, of.set(name.filename, blob));
  }
  const problems: ImportProblem[] = [];
  const collections: PlannedCollection[] = [];
  const names = new Set([...objects.keys(), ...((await old?.collections()) ?? [])]);
  for (const name of [...names].sort()) {
    const found = objects.get(name) ?? new Map<string, ForeignBlob>();
    const template = config.collections.get(name)?.filenameTemplate;
    const rows = USABLE_NAME.test(name) ? await old?.versions(name) : [];
    const planned = rows === undefined ? byNames(name, template, found, problems) : byRows(name, rows, found, problems);
    if (planned.versions.length > 0 || planned.lastNumber > 0n) collections.push(planned);
  }
  return { collections, problems };
}

function byNames(
  name: string,
  template: string | undefined,
  objects: ReadonlyMap<string, ForeignBlob>,
  problems: ImportProblem[],
): PlannedCollection {
  const versions: PlannedVersion[] = [];
  const leave = (key: string, why: string) => problems.push({ kind: "left alone", key, why });
  for (const [filename, { key, size, modifiedAt }] of objects) {
    const number = template === undefined ? undefined : foreignNumber(template, filename);
    if (template === undefined)
      leave(key, `the configuration has no collection "${name}"; with --from-database its versions are known`);
    else if (number === undefined)
      leave(
        key,
        `the filenameTemplate "${template}" does not make this name; with --from-database its number is known`,
      );
    else if (size === 0n) leave(key, "it is empty");
    else versions.push({ number, key, filename, size, at: modifiedAt, old: undefined });
  }
  versions.sort(lowestFirst);
  return { name, versions, lastNumber: versions.at(-1)?.number ?? 0n };
}

function byRows(
  name: string,
  rows: readonly OldVersion[],
  objects: ReadonlyMap<string, ForeignBlob>,
  problems: ImportProblem[],
): PlannedCollection {
  const planned = new Map<string, PlannedVersion>();
  const numbers = new Set<bigint>();
  const highestFirst = [...rows].sort((a, b) => (a.number > b.number ? -1 : a.number < b.number ? 1 : 0));
  for (const old of highestFirst) {
    const { number, filename } = old;
    const blob = objects.get(filename);
    const key = blob?.key ?? `${name}/${filename}`;
    const later = planned.get(filename);
    const miss = (why: string) => problems.push({ kind: "missing", key, why: `version ${number}: ${why}` });
    if (number < 1n) miss("a number below 1 is none");
    else if (blob === undefined) miss("the store has no such object");
    else if (later !== undefined) miss(`version ${later.number} was stored over it, since both have this name`);
    else if (numbers.has(number)) miss("the old database has another one of this number");
    else if (blob.size === 0n) miss("its object is empty");
    else planned.set(filename, { number, key, filename, size: blob.size, at: timeOf(old, blob), old });
    numbers.add(number);
  }
  for (const [filename, { key }] of objects) {
    if (planned.has(filename) || rows.some((row) => row.filename === filename)) continue;
    const why = USABLE_NAME.test(name)
      ? "the old database has no live version of this name"
      : `"${name}" cannot be the name of a collection`;
    problems.push({ kind: "left alone", key, why });
  }
  return { name, versions: [...planned.values()].sort(lowestFirst), lastNumber: highestFirst[0]?.number ?? 0n };
}

/** GORM fills in the time; a row that was made by hand may have none that can be. */
function timeOf({ createdAt }: OldVersion, { modifiedAt }: ForeignBlob): Date {
  return createdAt.getTime() > 0 ? createdAt : modifiedAt;
}

function lowestFirst(a: { readonly number: bigint }, b: { readonly number: bigint }): number {
  return a.number < b.number ? -1 : a.number > b.number ? 1 : 0;
}
