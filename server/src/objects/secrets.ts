import { quoted, ValueError } from "@strongroom/protocol/sizes";
import type { ConfigObject } from "./document.ts";
import { suggestion } from "./names.ts";
import type { ObjectNode, ValueNode } from "./node.ts";

/** Reads the value of a Secret's entry that is encoded in base64 at most `layers` times. */
export type SecretParser<T> = (text: string, layers: number) => T;

interface Entry {
  readonly node: ValueNode;
  readonly layers: number;
}

/**
 * The Secrets of a directory. Their values are looked at only where something refers to them, since other programs'
 * Secrets may lie beside.
 */
export class SecretStore {
  readonly #secrets = new Map<string, Map<string, Entry>>();

  /** Takes in an object of kind Secret. */
  add({ name, root }: ConfigObject): void {
    const entries = new Map<string, Entry>();
    const take = (field: string, layers: number) => {
      const values = root.get(field)?.object();
      for (const entry of values?.names() ?? []) {
        const node = values?.get(entry);
        if (node) entries.set(entry, { node, layers });
      }
    };
    // The output of the former --encode-password was itself base64; kubectl puts a second layer around what it is
    // given. As in Kubernetes, stringData has none of its own and replaces data.
    take("data", 2);
    take("stringData", 1);
    root.get("type");
    root.get("immutable");
    root.warnUnknown();
    this.#secrets.set(name, entries);
  }

  /**
   * Follows a reference `{name, entry}` in `field` of an object. A reference without a name counts as none, as it
   * always did.
   * @returns `undefined` when there is no reference, else the value, which is undefined when something was reported.
   */
  follow<T>(owner: ObjectNode, field: string, parse: SecretParser<T>): { readonly value: T | undefined } | undefined {
    const node = owner.get(field);
    if (!node) return undefined;
    const reference = node.object();
    if (!reference) return { value: undefined };
    const name = reference.get("name")?.text();
    const entryName = reference.get("entry")?.text();
    reference.warnUnknown();
    if (!name && !entryName) return undefined;
    const entry = this.#find(reference, name, entryName);
    const text = entry?.node.text();
    if (!entry || text === undefined) return { value: undefined };
    try {
      return { value: parse(text, entry.layers) };
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      // The mistake is in the Secret, so it is reported there.
      const { file, line, path } = node.place;
      entry.node.error(`${error.message} (${path} in ${file}:${line} refers to it)`);
      return { value: undefined };
    }
  }

  #find(reference: ObjectNode, name: string | undefined, entryName: string | undefined): Entry | undefined {
    const nameNode = reference.require("name", "the name of a Secret");
    const entryNode = reference.require("entry", "the name of an entry in the Secret's data");
    if (!nameNode || !entryNode || name === undefined || entryName === undefined) return undefined;
    const entries = this.#secrets.get(name);
    if (!entries) {
      const near = suggestion(name, this.#secrets.keys());
      nameNode.error(`expected the name of a Secret in this directory, got ${quoted(name)}, which is not there${near}`);
      return undefined;
    }
    const entry = entries.get(entryName);
    if (!entry) {
      const near = suggestion(entryName, entries.keys());
      entryNode.error(
        `expected an entry of the Secret ${quoted(name)}, got ${quoted(entryName)}, which it lacks${near}`,
      );
    }
    return entry;
  }
}
