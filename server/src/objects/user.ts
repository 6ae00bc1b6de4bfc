import { quoted } from "@strongroom/protocol/sizes";
import { parseAddressRange } from "../domain/addresses.ts";
import type { AccessKey, ObjectGrant, User } from "../domain/configuration.ts";
import type { ConfigObject } from "./document.ts";
import { checkLoginName } from "./names.ts";
import type { ObjectNode, ValueNode } from "./node.ts";
import { parsePasswordHash } from "./password-hash.ts";
import { readRoles } from "./roles.ts";
import type { SecretStore } from "./secrets.ts";

/** Another object by its name, to be looked for when everything has been read. */
export interface NameReference {
  readonly name: string;
  readonly node: ValueNode;
}

/** A user as it was read. */
export interface ReadUser {
  readonly user: User;
  /** Collections that access keys name. */
  readonly collections: readonly NameReference[];
}

function isHash(text: string): boolean {
  try {
    parsePasswordHash(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * The hash of a user or access key. A reference wins over an inline value: the examples of existing installations have
 * the placeholder `hashed` beside it.
 */
function readPassword(
  owner: ObjectNode,
  secrets: SecretStore,
  who: string,
  { mayLackOne = false } = {},
): string | undefined {
  const inline = owner.get("password");
  const referred = secrets.follow(owner, "passwordFromRef", parsePasswordHash);
  const text = inline?.text();
  if (referred) {
    if (text !== undefined && isHash(text))
      inline?.warn("not used, because passwordFromRef stands beside it; remove one of them");
    return referred.value;
  }
  if (inline && text) return inline.parsed((value) => parsePasswordHash(value));
  // A text that is missing because it is no text was reported already.
  if ((!inline || text === "") && !mayLackOne)
    owner.warn(`${who} has no password and cannot log in; set passwordFromRef or password`);
  return undefined;
}

function readGrant(item: ValueNode, collections: NameReference[]): ObjectGrant | undefined {
  const object = item.object();
  if (!object) return undefined;
  const nameNode = object.require("name", "the name of a collection");
  const name = nameNode?.text();
  const typeNode = object.get("type");
  const type = typeNode ? typeNode.text() : "collection";
  const roles = readRoles(object.get("roles"), "object");
  object.warnUnknown();
  if (!nameNode || name === undefined || type === undefined) return undefined;
  if (type === "collection") collections.push({ name, node: nameNode });
  else typeNode?.warn(`expected "collection", got ${quoted(type)}; there are no other types, so it allows nothing`);
  return { type, name, roles };
}

/** Where a user or access key may come from; empty for anywhere. */
function readAddresses(owner: ObjectNode): string[] {
  return (owner.get("restrictByIP")?.items() ?? []).flatMap((item) => item.parsed(parseAddressRange) ?? []);
}

function readAccessKey(
  item: ValueNode,
  secrets: SecretStore,
  collections: NameReference[],
  names: Set<string>,
): AccessKey | undefined {
  const object = item.object();
  if (!object) return undefined;
  const nameNode = object.require("name", "the name after the $ in the login");
  const name = nameNode?.text() === undefined ? undefined : nameNode.parsed(checkLoginName);
  if (name !== undefined && names.has(name))
    nameNode?.error(`expected each access key once, got ${quoted(name)} again`);
  if (name !== undefined) names.add(name);
  const passwordHash = readPassword(object, secrets, `the access key ${quoted(name ?? "")}`);
  const restrictByIp = readAddresses(object);
  const objects = (object.get("objects")?.items() ?? []).flatMap((grant) => readGrant(grant, collections) ?? []);
  object.warnUnknown();
  return name === undefined ? undefined : { name, passwordHash, restrictByIp, objects };
}

/** Reads an object of kind BackupUser; what is wrong is reported, and the result then not to be used. */
export function readUser({ name, root }: ConfigObject, secrets: SecretStore): ReadUser | undefined {
  const spec = root.require("spec", "a mapping with email and roles")?.object();
  root.warnUnknown();
  if (!spec) return undefined;
  const emailNode = spec.require("email", "an e-mail address");
  const email = emailNode?.text() ?? "";
  if (email !== "" && !/^[^\s@]+@[^\s@]+$/.test(email))
    emailNode?.warn(`${quoted(email)} does not look like an e-mail address`);
  const collections: NameReference[] = [];
  const keyNames = new Set<string>();
  const accessKeys = (spec.get("accessKeys")?.items() ?? []).flatMap(
    (item) => readAccessKey(item, secrets, collections, keyNames) ?? [],
  );
  // A user that is there for its access keys needs no password of its own.
  const mayLackOne = accessKeys.some(({ passwordHash }) => passwordHash !== undefined);
  const user: User = {
    name,
    email,
    organization: spec.get("organization")?.text() ?? "",
    about: spec.get("about")?.text() ?? "",
    deactivated: spec.get("deactivated")?.flag() ?? false,
    passwordHash: readPassword(spec, secrets, "this user", { mayLackOne }),
    restrictByIp: readAddresses(spec),
    roles: readRoles(spec.require("roles", "a list of roles, [] for none"), "system"),
    accessKeys,
  };
  spec.warnUnknown();
  return { user, collections };
}
