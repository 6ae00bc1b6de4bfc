import { quoted, ValueError } from "@strongroom/protocol/sizes";
import type { CollectionSpec, Configuration, OrganizationSpec, User } from "../domain/configuration.ts";
import type { NotifierSpec } from "../domain/notifications.ts";
import { readCollection } from "./collection.ts";
import { CollectionDefaults } from "./collection-defaults.ts";
import { type ConfigFile, type ConfigKind, type ConfigObject, readDocuments } from "./document.ts";
import { checkCollectionName, checkLoginName, suggestion } from "./names.ts";
import { readNotifier } from "./notifier.ts";
import { entriesOf, type ObjectEntry } from "./object-entry.ts";
import { readOrganization } from "./organization.ts";
import type { ConfigProblem, Findings } from "./problem.ts";
import { SecretStore } from "./secrets.ts";
import { type NameReference, readUser } from "./user.ts";

/** What a source of configuration holds, and what is to be said about it. */
export interface LoadResult {
  /** The objects without a problem. Not to be put in force while `problems` is not empty. */
  readonly configuration: Configuration;
  /** Errors, by file and line. */
  readonly problems: ConfigProblem[];
  /** Number of configuration files that were read. */
  readonly files: number;
  /** Warnings, by file and line. */
  readonly warnings: ConfigProblem[];
  /** Every object that was read, by kind and name, also those with a problem in what follows its name. */
  readonly objects: readonly ObjectEntry[];
  /** Files that have a Secret. */
  readonly secretFiles: readonly string[];
}

/** Each has a connection of its own when it is told something. */
const MOST_NOTIFIERS = 100;

/** Rule for the names of each kind; a Secret's name is only ever compared. */
const NAME_RULES: Readonly<Record<ConfigKind, (name: string) => string>> = {
  BackupUser: checkLoginName,
  BackupCollection: checkCollectionName,
  BackupCollectionDefaults: checkLoginName,
  BackupOrganization: checkLoginName,
  BackupNotifier: checkLoginName,
  Secret: (name) => name,
};

/** All objects of a directory by kind and name; the first of each name counts, others are reported. */
class ObjectIndex {
  readonly #kinds = new Map<ConfigKind, Map<string, ConfigObject>>();

  constructor(objects: readonly ConfigObject[], findings: Findings) {
    for (const object of objects) {
      const named = this.#kinds.get(object.kind) ?? new Map<string, ConfigObject>();
      this.#kinds.set(object.kind, named);
      try {
        NAME_RULES[object.kind](object.name);
      } catch (error) {
        if (!(error instanceof ValueError)) throw error;
        findings.error(object.namePlace, error.message);
        continue;
      }
      const first = named.get(object.name);
      if (first) {
        const { file, line } = first.namePlace;
        const again = `expected each ${object.kind} once, got ${quoted(object.name)} again (first in ${file}:${line})`;
        findings.error(object.namePlace, `${again}; namespaces do not tell objects apart, remove or rename one`);
      } else {
        named.set(object.name, object);
      }
    }
  }

  all(): ConfigObject[] {
    return [...this.#kinds.values()].flatMap((named) => [...named.values()]);
  }

  of(kind: ConfigKind): ConfigObject[] {
    return [...(this.#kinds.get(kind)?.values() ?? [])];
  }

  /**
   * Says, as an error or a warning, that a reference leads nowhere; an object that is there but wrong was reported
   * itself.
   */
  check(kind: ConfigKind, { name, node }: NameReference, severity: "error" | "warn", consequence: string): void {
    const known = this.#kinds.get(kind);
    if (known?.has(name)) return;
    const near = suggestion(name, known?.keys() ?? []);
    node[severity](
      `expected the name of a ${kind} in this directory, got ${quoted(name)}, which is not there${consequence}${near}`,
    );
  }
}

/** Files of a source as they were read at one time, not yet judged. */
export interface ObjectFiles {
  readonly files: readonly ConfigFile[];
  /** What could not be read. */
  readonly findings: Findings;
}

/** Makes a configuration of what was read. Once only for each content, since it adds to its findings. */
export async function interpret({ files, findings }: ObjectFiles): Promise<LoadResult> {
  const index = new ObjectIndex(
    files.flatMap((file) => readDocuments(file, findings)),
    findings,
  );
  const secrets = new SecretStore();
  for (const object of index.of("Secret")) secrets.add(object);

  const organizations = new Map<string, OrganizationSpec>();
  for (const object of index.of("BackupOrganization")) {
    const before = findings.errorCount;
    const organization = readOrganization(object);
    if (findings.errorCount === before) organizations.set(object.name, organization);
  }

  const users = new Map<string, User>();
  for (const object of index.of("BackupUser")) {
    const before = findings.errorCount;
    const read = readUser(object, secrets);
    for (const reference of read?.collections ?? []) {
      index.check("BackupCollection", reference, "warn", ", so it allows nothing");
    }
    if (read && findings.errorCount === before) users.set(object.name, read.user);
  }

  const defaults = new CollectionDefaults(index.of("BackupCollectionDefaults"), findings);
  const collections = new Map<string, CollectionSpec>();
  for (const object of index.of("BackupCollection")) {
    const before = findings.errorCount;
    const read = await readCollection(object, secrets, defaults);
    if (read?.organization) index.check("BackupOrganization", read.organization, "error", "");
    for (const reference of read?.users ?? []) index.check("BackupUser", reference, "warn", ", so it allows nothing");
    if (read && findings.errorCount === before) collections.set(object.name, read.collection);
  }

  const notifiers = new Map<string, NotifierSpec>();
  for (const object of index.of("BackupNotifier")) {
    const before = findings.errorCount;
    const read = readNotifier(object, secrets);
    for (const reference of read.collections)
      index.check("BackupCollection", reference, "warn", ", so nothing is told of it");
    for (const reference of read.organizations)
      index.check("BackupOrganization", reference, "warn", ", so nothing is told of it");
    if (read.notifier && findings.errorCount === before) notifiers.set(object.name, read.notifier);
    if (notifiers.size > MOST_NOTIFIERS) {
      const reason = `expected at most ${MOST_NOTIFIERS} objects of kind BackupNotifier, got another; put receivers together`;
      findings.error(object.namePlace, reason);
      break;
    }
  }

  defaults.warnUnused();

  if (index.of("BackupUser").length === 0 && findings.errorCount === 0) {
    findings.warn(
      { file: ".", line: 1, path: "" },
      "no BackupUser, so nobody can log in; `strongroom init` shows how one looks",
    );
  }
  return {
    configuration: { users, collections, organizations, notifiers },
    problems: findings.problems(),
    files: files.length,
    objects: entriesOf(index.all(), files),
    warnings: findings.warnings(),
    secretFiles: [...new Set(index.of("Secret").map(({ namePlace }) => namePlace.file))],
  };
}
