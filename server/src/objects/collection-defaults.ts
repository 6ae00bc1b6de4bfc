import { quoted } from "@strongroom/protocol/sizes";
import type { ConfigObject } from "./document.ts";
import { suggestion } from "./names.ts";
import type { ObjectNode } from "./node.ts";
import type { Findings } from "./problem.ts";

/**
 * The objects of kind BackupCollectionDefaults, whose fields a collection has that names one by `spec.defaultsRef` and
 * does not say otherwise. They are judged as a part of each such collection; what is wrong is said where it stands, with
 * the names of the collections.
 */
export class CollectionDefaults {
  readonly #specs = new Map<string, ObjectNode | undefined>();
  readonly #findings: Findings;
  readonly #unused: Map<string, ObjectNode>;

  constructor(objects: readonly ConfigObject[], findings: Findings) {
    this.#findings = findings;
    this.#unused = new Map(objects.map(({ name, root }) => [name, root]));
    for (const { name, root } of objects) {
      const spec = root.require("spec", "a mapping with fields of a BackupCollection")?.object();
      root.warnUnknown();
      spec?.get("defaultsRef")?.error("expected no defaultsRef here: defaults go one level deep; write the fields out");
      this.#specs.set(name, spec);
    }
  }

  /** Lets a collection's spec have the fields of the defaults that it names. */
  apply(spec: ObjectNode, collection: string): void {
    const node = spec.get("defaultsRef");
    const name = node?.text();
    if (node === undefined || name === undefined) return;
    if (!this.#specs.has(name)) {
      const near = suggestion(name, this.#specs.keys());
      node.error(
        `expected the name of a BackupCollectionDefaults in this directory, got ${quoted(name)}, which is not there${near}`,
      );
      return;
    }
    this.#unused.delete(name);
    const defaults = this.#specs
      .get(name)
      ?.reportingTo(this.#findings.through(`BackupCollection ${quoted(collection)}`));
    // Asked for, so that it is no unknown field: what is wrong with it was said.
    defaults?.get("defaultsRef");
    if (defaults !== undefined) spec.fallBackTo(defaults);
  }

  /** Warns of those that no collection names. */
  warnUnused(): void {
    for (const root of this.#unused.values())
      root.warn("no BackupCollection names it by spec.defaultsRef, so that its fields are not checked");
  }
}
