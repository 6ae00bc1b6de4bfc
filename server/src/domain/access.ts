import type { CollectionSpec, ObjectGrant, Role, User } from "./configuration.ts";

/** What can be done to a collection. */
export type CollectionAction = "upload" | "upload-anytime" | "download" | "manage";

/** The caller of a use case: a user in one session. */
export interface Principal {
  readonly user: User;
  /** Name of the access key the session was opened with; empty for none. */
  readonly accessKey: string;
  /** What the session is narrowed to; empty for everything. */
  readonly scope: readonly ObjectGrant[];
  readonly sessionId: string;
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
export function mayDo(principal: Principal, collection: CollectionSpec, action: CollectionAction): boolean {
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

/** Whether the caller may see the collection: list and describe its versions and health. */
export function maySee(principal: Principal, collection: CollectionSpec): boolean {
  return mayDo(principal, collection, "upload") || mayDo(principal, collection, "download");
}

/**
 * Whether the caller has a role for the whole system. Sessions of access keys and narrowed sessions never do: their
 * grants name collections only.
 */
export function hasSystemRole(principal: Principal, role: Role): boolean {
  if (principal.accessKey !== "" || principal.scope.length > 0) return false;
  return principal.user.roles.includes(role) || principal.user.roles.includes("systemAdmin");
}
