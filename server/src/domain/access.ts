import type { CollectionSpec, ObjectGrant, Role, User } from "./configuration.ts";

/** What can be done to a collection. */
export type CollectionAction = (typeof COLLECTION_ACTIONS)[number];

/** All of them. */
export const COLLECTION_ACTIONS = ["upload", "upload-anytime", "download", "manage"] as const;

/** The caller of a use case: a user in one session. */
export interface Principal {
  readonly user: User;
  /** Name of the access key the session was opened with; empty for none. */
  readonly accessKey: string;
  /** What the session is narrowed to; empty for everything. */
  readonly scope: readonly ObjectGrant[];
  readonly sessionId: string;
  /** Where the call came from, for the audit log; undefined where no call was made. */
  readonly origin?: { readonly address: string; readonly requestId: string };
}

const ACTIONS_OF_ROLE: Readonly<Record<Role, readonly CollectionAction[]>> = {
  systemAdmin: ["upload", "upload-anytime", "download", "manage"],
  userManager: [],
  collectionManager: ["upload", "upload-anytime", "download", "manage"],
  backupUploader: ["upload"],
  backupDownloader: ["download"],
  uploadsAnytime: ["upload", "upload-anytime"],
};

const permits = (roles: readonly Role[], action: CollectionAction) =>
  roles.some((role) => ACTIONS_OF_ROLE[role].includes(action));

/**
 * Roles that mean something only for the whole system; in an access list they would give a collection what only the
 * system can give.
 */
const SYSTEM_ONLY: ReadonlySet<Role> = new Set(["systemAdmin", "userManager"]);

const grantsPermit = (grants: readonly ObjectGrant[], collection: string, action: CollectionAction) =>
  grants.some((g) => g.type === "collection" && g.name === collection && permits(g.roles, action));

/**
 * Whether the caller may do this to the collection: (a role in its access list or a system-wide role) and, with an
 * access key, the key's roles for it, and, with a scope, the scope's roles for it. Access keys and scopes only narrow.
 */
export function mayDo(
  principal: Principal,
  collection: Pick<CollectionSpec, "name" | "accessControl">,
  action: CollectionAction,
): boolean {
  const { user } = principal;
  const ofUser =
    permits(user.roles, action) ||
    collection.accessControl.some(
      (entry) =>
        entry.userName === user.name &&
        permits(
          entry.roles.filter((role) => !SYSTEM_ONLY.has(role)),
          action,
        ),
    );
  if (!ofUser) return false;
  if (principal.accessKey !== "") {
    const key = user.accessKeys.find((k) => k.name === principal.accessKey);
    if (key === undefined || !grantsPermit(key.objects, collection.name, action)) return false;
  }
  return principal.scope.length === 0 || grantsPermit(principal.scope, collection.name, action);
}

/** What a session may do in one collection; nothing also when there is no such collection. */
export interface CollectionRights {
  readonly collection: string;
  readonly actions: readonly CollectionAction[];
}

/**
 * What a session may do where its scope, or else its access key, names collections; nothing for a session with neither,
 * which may do what its user may.
 */
export function namedRights(
  principal: Principal,
  collections: ReadonlyMap<string, CollectionSpec>,
): readonly CollectionRights[] {
  const key = principal.user.accessKeys.find(({ name }) => name === principal.accessKey);
  const grants = principal.scope.length > 0 ? principal.scope : (key?.objects ?? []);
  const names = new Set(grants.filter(({ type }) => type === "collection").map(({ name }) => name));
  return [...names].sort().map((name) => {
    const spec = collections.get(name);
    const actions = spec === undefined ? [] : COLLECTION_ACTIONS.filter((action) => mayDo(principal, spec, action));
    return { collection: name, actions };
  });
}

/** Whether the caller may see the collection: list and describe its versions and health. */
export function maySee(principal: Principal, collection: Pick<CollectionSpec, "name" | "accessControl">): boolean {
  return mayDo(principal, collection, "upload") || mayDo(principal, collection, "download");
}

/**
 * Whether the caller may see a collection of this name whatever its access list says, by a role for the whole system.
 * Such a caller can be told that there is none without learning anything.
 */
export function maySeeAnyOf(principal: Principal, name: string): boolean {
  return maySee(principal, { name, accessControl: [] });
}

/**
 * Whether the caller has a role for the whole system. Sessions of access keys and narrowed sessions never do: their
 * grants name collections only.
 */
export function hasSystemRole(principal: Principal, role: Role): boolean {
  if (principal.accessKey !== "" || principal.scope.length > 0) return false;
  return principal.user.roles.includes(role) || principal.user.roles.includes("systemAdmin");
}

/**
 * Whether these roles are as much as one role: they have it, or it allows nothing that they do not. What only the
 * system can give is covered by itself and by systemAdmin.
 */
function covers(roles: readonly Role[], role: Role): boolean {
  if (roles.includes("systemAdmin") || roles.includes(role)) return true;
  return !SYSTEM_ONLY.has(role) && ACTIONS_OF_ROLE[role].every((action) => permits(roles, action));
}

/**
 * The first role of a user that the caller does not have, system-wide or in the access list of a collection, with the
 * collection then; undefined when the user has no more than the caller.
 */
export function roleBeyond(
  caller: User,
  user: User,
  collections: Iterable<CollectionSpec>,
): { readonly role: Role; readonly collection: string | undefined } | undefined {
  const system = user.roles.find((role) => !covers(caller.roles, role));
  if (system !== undefined) return { role: system, collection: undefined };
  for (const { name, accessControl } of collections) {
    const inList = (who: User) =>
      accessControl
        .filter(({ userName }) => userName === who.name)
        .flatMap(({ roles }) => roles)
        .filter((role) => !SYSTEM_ONLY.has(role));
    const own = [...caller.roles, ...inList(caller)];
    const role = inList(user).find((each) => !covers(own, each));
    if (role !== undefined) return { role, collection: name };
  }
  return undefined;
}
