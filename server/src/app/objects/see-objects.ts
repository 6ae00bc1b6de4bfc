import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { cutPage } from "../../domain/page.ts";
import { API_VERSION_OF, type ConfigKind } from "../../objects/document.ts";
import { type ObjectEntry, sortKey } from "../../objects/object-entry.ts";
import { defaultsNameOf, effectiveObject, shownObject } from "../../objects/show-object.ts";
import type { ConfigObjects, ObjectName } from "../ports/config-objects.ts";
import type { ConfigSource } from "../ports/config-source.ts";

/** The port for looking at configuration objects. */
export interface SeeObjectsDeps {
  readonly config: ConfigSource;
}

/** Every kind of configuration object. */
export const OBJECT_KINDS = [...API_VERSION_OF.keys()] as readonly ConfigKind[];

/** The kinds whose objects the caller may see. @throws DomainError ACCESS_DENIED where it may see none */
export function visibleKinds(principal: Principal): readonly string[] {
  if (hasSystemRole(principal, "systemAdmin")) return OBJECT_KINDS;
  if (hasSystemRole(principal, "userManager")) return ["BackupUser"];
  throw new DomainError(
    "ACCESS_DENIED",
    "configuration objects are for systemAdmin, and users for userManager too, in a session without access key and " +
      "scope",
    { metadata: { action: "administer" } },
  );
}

/** The objects of the source. @throws DomainError CONFIGURATION_READ_ONLY for a source that does not show them */
export function objectsOf(config: ConfigSource): ConfigObjects {
  if (config.objects !== undefined) return config.objects;
  throw new DomainError("CONFIGURATION_READ_ONLY", "this server's source of configuration does not show its objects");
}

/** The object of the state in force, if the caller may see it. */
export function requireObject(config: ConfigSource, principal: Principal, { kind, name }: ObjectName): ObjectEntry {
  const kinds = visibleKinds(principal);
  const entry = objectsOf(config)
    .list()
    .find((each) => each.kind === kind && each.name === name);
  if (entry === undefined || !kinds.includes(kind)) throw objectNotFound({ kind, name });
  return entry;
}

/** There is no such object, or the caller may not see objects of its kind. */
export function objectNotFound({ kind, name }: ObjectName): DomainError {
  return new DomainError(
    "OBJECT_NOT_FOUND",
    `there is no ${kind} "${name}", or you may not see objects of that kind; ListObjects has those you may`,
    { metadata: { kind, name } },
  );
}

/** Gives one object, as it is written or as it is in effect, without its secrets. */
export async function getObject(
  deps: SeeObjectsDeps,
  principal: Principal,
  input: ObjectName & { readonly effective: boolean; readonly format: "yaml" | "json" },
): Promise<{ entry: ObjectEntry; document: string }> {
  requireObject(deps.config, principal, input);
  const objects = objectsOf(deps.config);
  const object = await objects.read(input);
  if (object === undefined) throw objectNotFound(input);
  const defaultsName = input.effective ? defaultsNameOf(object) : undefined;
  const defaults =
    defaultsName === undefined
      ? undefined
      : await objects.read({ kind: "BackupCollectionDefaults", name: defaultsName });
  const document =
    defaults === undefined ? shownObject(object, input.format) : effectiveObject(object, defaults, input.format);
  return { entry: object.entry, document };
}

/** Lists objects that the caller may see by kind and name, after `after`. */
export function listObjects(
  deps: SeeObjectsDeps,
  principal: Principal,
  input: { readonly kind: string; readonly namespace: string; readonly after: string | undefined; pageSize: number },
): { objects: ObjectEntry[]; nextAfter: string | undefined } {
  const kinds = visibleKinds(principal).filter((kind) => input.kind === "" || kind === input.kind);
  const found = objectsOf(deps.config)
    .list()
    .filter(({ kind }) => kinds.includes(kind))
    .filter(({ namespace }) => input.namespace === "" || namespace === input.namespace)
    .filter((entry) => input.after === undefined || sortKey(entry) > input.after);
  const { page, more } = cutPage(found, input.pageSize, ({ file, name }) => Buffer.byteLength(file + name));
  return { objects: page, nextAfter: more ? sortKey(page.at(-1)!) : undefined };
}
