import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type {
  ChangePlan,
  ConfigObjects,
  ConfigStore,
  ObjectName,
  ReadOnlySource,
  WantedChange,
  WrittenObject,
} from "../../app/ports/config-objects.ts";
import { findObject, type ObjectEntry } from "../../objects/object-entry.ts";
import { objectText } from "../../objects/show-object.ts";
import { planDirectoryChange } from "./directory.ts";
import { MAX_FILE_SIZE } from "./files.ts";
import { planInThread } from "./plan-in-thread.ts";
import { whyReadOnly } from "./read-only.ts";
import { writeFiles } from "./write-files.ts";

/** What a directory's objects need of the source. */
export interface DirectoryObjectsParts {
  readonly dir: string;
  /** Why the server is not to write the directory, said by its operator; undefined where it may. */
  readonly readOnly: string | undefined;
  /** The objects of the state in force. */
  readonly list: () => readonly ObjectEntry[];
  /** Takes up what was written. @throws NotInForceError */
  readonly takeUp: () => Promise<void>;
}

/** Objects from which on a change is judged in a thread of its own: it takes the processor for a second and more. */
const MANY_OBJECTS = 200;

/** Characters of documents from which on it is so too. */
const LONG_DOCUMENTS = 16 * 1024;

/** The objects of a configuration directory. */
export class DirectoryObjects implements ConfigObjects {
  readonly #dir: string;
  readonly #list: () => readonly ObjectEntry[];
  readonly #parts: DirectoryObjectsParts;

  constructor(parts: DirectoryObjectsParts) {
    this.#dir = parts.dir;
    this.#list = parts.list;
    this.#parts = parts;
  }

  list(): readonly ObjectEntry[] {
    return this.#list();
  }

  async read({ kind, name }: ObjectName): Promise<WrittenObject | undefined> {
    const known = this.#list().find((entry) => entry.kind === kind && entry.name === name);
    if (known === undefined) return undefined;
    const bytes = await readFile(join(this.#dir, known.file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (bytes === undefined || bytes.length > MAX_FILE_SIZE) return undefined;
    const text = bytes.toString("utf8");
    const found = findObject({ file: known.file, text }, known);
    return found && { ...objectText(found.object, text), entry: found.entry };
  }

  async plan(change: WantedChange): Promise<ChangePlan> {
    const isLong = "documents" in change && change.documents.length > LONG_DOCUMENTS;
    if (!isLong && this.#list().length < MANY_OBJECTS) return await planDirectoryChange(this.#dir, change);
    return await planInThread({ dir: this.#dir, change });
  }

  async storeFor(plan: ChangePlan): Promise<ConfigStore | ReadOnlySource> {
    const readOnly = this.#parts.readOnly ?? (await whyReadOnly(this.#dir, plan.files));
    if (readOnly !== undefined) return { readOnly };
    return {
      write: async ({ files }) => {
        await writeFiles(this.#dir, files);
        await this.#parts.takeUp();
      },
    };
  }
}
