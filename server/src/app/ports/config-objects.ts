import type { ConfigKind } from "../../objects/document.ts";
import type { ObjectEntry } from "../../objects/object-entry.ts";
import type { ObjectText } from "../../objects/show-object.ts";

export type { ObjectEntry };

/** Which object is meant. */
export interface ObjectName {
  readonly kind: ConfigKind;
  readonly name: string;
}

/** An object as its source has it now. */
export interface WrittenObject extends ObjectText {
  readonly entry: ObjectEntry;
}

/** The objects of a source, as they are written. */
export interface ConfigObjects {
  /** Those of the state in force, by kind and name. */
  list(): readonly ObjectEntry[];
  /** One of them as the source has it now, with its secrets; undefined where it is not, or not any more. */
  read(object: ObjectName): Promise<WrittenObject | undefined>;
}
