import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ConfigObjects, ObjectName, WrittenObject } from "../../app/ports/config-objects.ts";
import { findObject, type ObjectEntry } from "../../objects/object-entry.ts";
import { objectText } from "../../objects/show-object.ts";
import { MAX_FILE_SIZE } from "./files.ts";

/** The objects of a configuration directory. */
export class DirectoryObjects implements ConfigObjects {
  readonly #dir: string;
  readonly #list: () => readonly ObjectEntry[];

  /** @param list gives those of the state in force. */
  constructor(dir: string, list: () => readonly ObjectEntry[]) {
    this.#dir = dir;
    this.#list = list;
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
}
