import type { ObjectEntry, ObjectName } from "../../objects/object-entry.ts";
import type { ChangePlan, PlannedObject, WantedChange } from "../../objects/plan-change.ts";
import type { ObjectText } from "../../objects/show-object.ts";

export type { ChangePlan, ObjectEntry, ObjectName, PlannedObject, WantedChange };

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
  /** Judges a change without making it, as the source is now. */
  plan(change: WantedChange): Promise<ChangePlan>;
  /** Who writes such a change; or why nobody does here, because the source is written elsewhere. */
  storeFor(plan: ChangePlan): Promise<ConfigStore | ReadOnlySource>;
}

/** A source that this server does not write. */
export interface ReadOnlySource {
  /** Why, for people: `it is a mounted ConfigMap`. */
  readonly readOnly: string;
}

/** Writes changes to where the configuration comes from; a source that is read-only has none. */
export interface ConfigStore {
  /**
   * Writes a plan, each file whole or not at all whatever happens, and puts it in force.
   * @throws {SourceChangedError} when the source is not as it was planned with
   * @throws {NotInForceError} when something that others wrote at the same time keeps it from being in force
   */
  write(plan: ChangePlan): Promise<void>;
}

/** Somebody else changed the source since a change was planned; nothing was written, unless it says so. */
export class SourceChangedError extends Error {
  override name = "SourceChangedError";
  /** Which file. */
  readonly file: string;

  constructor(file: string) {
    super(`${file} was changed by somebody else`);
    this.file = file;
  }
}

/** What was written is not in force. */
export class NotInForceError extends Error {
  override name = "NotInForceError";
}
