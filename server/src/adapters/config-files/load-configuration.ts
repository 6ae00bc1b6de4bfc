import { createHash } from "node:crypto";
import type { CollectionSpec, Configuration, OrganizationSpec, User } from "../../domain/objects.ts";
import { quoted, ValueError } from "../../domain/sizes.ts";
import { readCollection } from "./collection.ts";
import { type ConfigKind, type ConfigObject, readDocuments } from "./document.ts";
import { type ConfigDirectory, readConfigFiles } from "./files.ts";
import { checkCollectionName, checkLoginName, suggestion } from "./names.ts";
import { readOrganization } from "./organization.ts";
import { type ConfigProblem, Findings, formatProblem } from "./problem.ts";
import { SecretStore } from "./secrets.ts";
import { type NameReference, readUser } from "./user.ts";

/** What a configuration directory holds, and what is to be said about it. */
export interface LoadResult {
  /** The objects without a problem. Not to be put in force while `problems` is not empty. */
  readonly configuration: Configuration;
  /** Errors, by file and line. */
  readonly problems: ConfigProblem[];
  /** Number of configuration files that were read. */
  readonly files: number;
  /** Warnings, by file and line. */
  readonly warnings: ConfigProblem[];
}

/** Rule for the names of each kind; a Secret's name is only ever compared. */
const NAME_RULES: Readonly<Record<ConfigKind, (name: string) => string>> = {
  BackupUser: checkLoginName,
  BackupCollection: checkCollectionName,
  BackupOrganization: checkLoginName,
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
        const again = `expected each ${object.kind} once, came ${quoted(object.name)} again (first in ${file}:${line})`;
        findings.error(object.namePlace, `${again}; namespaces do not tell objects apart, remove or rename one`);
      } else {
        named.set(object.name, object);
      }
    }
  }

  of(kind: ConfigKind): ConfigObject[] {
    return [...(this.#kinds.get(kind)?.values() ?? [])];
  }

  /** Says, as an error or a warning, that a reference leads nowhere; an object that is there but wrong was reported itself. */
  check(kind: ConfigKind, { name, node }: NameReference, severity: "error" | "warn", consequence: string): void {
    const known = this.#kinds.get(kind);
    if (known?.has(name)) return;
    const near = suggestion(name, known?.keys() ?? []);
    node[severity](
      `expected the name of a ${kind} in this directory, came ${quoted(name)}, which is not there${consequence}${near}`,
    );
  }
}

/** A configuration directory as it was read at one time, not yet judged. */
export interface DirectoryContent extends ConfigDirectory {
  /** SHA-256 over everything that was read, in hexadecimal: equal for equal content, whatever the times of the files. */
  readonly digest: string;
  /** What could not be read. */
  readonly findings: Findings;
}

/**
 * Reads the files of a configuration directory. Never throws because of what the directory holds: that it is missing, too, is a finding.
 * @param dir path of the directory; links in it are followed (see {@link readConfigFiles}).
 */
export async function readDirectory(dir: string): Promise<DirectoryContent> {
  const findings = new Findings();
  const { files, directories } = await readConfigFiles(dir, findings);
  const hash = createHash("sha256");
  // Lengths keep apart what would look the same when put together.
  for (const { file, text } of files) hash.update(`${file.length} ${text.length} ${file}${text}`);
  for (const problem of findings.problems()) hash.update(formatProblem(problem));
  return { files, directories, findings, digest: hash.digest("hex") };
}

/**
 * Reads and checks a configuration directory: `.yaml`, `.yml` and `.json` files in any layout, with one or several documents each. The layout
 * `<namespace>/<group>/<version>/<kind>/<name>.yaml` of existing installations is a convention only.
 *
 * Never throws because of what the directory holds.
 * @param dir path of the directory.
 */
export async function loadConfiguration(dir: string): Promise<LoadResult> {
  return await interpret(await readDirectory(dir));
}

/** Makes a configuration of what was read. Once only for each content, since it adds to its findings. */
export async function interpret({ files, findings }: DirectoryContent): Promise<LoadResult> {
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

  const collections = new Map<string, CollectionSpec>();
  for (const object of index.of("BackupCollection")) {
    const before = findings.errorCount;
    const read = await readCollection(object, secrets);
    if (read?.organization) index.check("BackupOrganization", read.organization, "error", "");
    for (const reference of read?.users ?? []) index.check("BackupUser", reference, "warn", ", so it allows nothing");
    if (read && findings.errorCount === before) collections.set(object.name, read.collection);
  }

  if (index.of("BackupUser").length === 0 && findings.errorCount === 0) {
    findings.warn(
      { file: ".", line: 1, path: "" },
      "no BackupUser, so nobody can log in; `strongroom init` shows how one looks",
    );
  }
  return {
    configuration: { users, collections, organizations },
    problems: findings.problems(),
    files: files.length,
    warnings: findings.warnings(),
  };
}
