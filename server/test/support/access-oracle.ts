/**
 * The rule of access, written down a second time from the words of the specification (section 7, "Users, roles,
 * access") and of `docs/decisions.md`. It imports nothing of the server on purpose: what the two agree on was thought
 * twice.
 */

/** What is done to a collection. */
export type Act = "upload" | "upload outside windows" | "download" | "manage";

/** Roles by the name of a collection. */
export type RolesByCollection = Readonly<Record<string, readonly string[]>>;

/** Somebody with a session. */
export interface Subject {
  /** Roles the user has system-wide. */
  readonly system: readonly string[];
  /** Roles the access lists of collections give the user. */
  readonly lists: RolesByCollection;
  /** What the access key names; undefined for a session without one. */
  readonly key: RolesByCollection | undefined;
  /** What the scope names; undefined for a session without one. */
  readonly scope: RolesByCollection | undefined;
}

/** Column "may" of the table. */
const MAY: Readonly<Record<string, readonly Act[]>> = {
  // "everything"
  systemAdmin: ["upload", "upload outside windows", "download", "manage"],
  // "see and manage users"
  userManager: [],
  // "manage, upload, download, delete, upload anytime"
  collectionManager: ["upload", "upload outside windows", "download", "manage"],
  // "upload"
  backupUploader: ["upload"],
  // "download"
  backupDownloader: ["download"],
  // "upload also outside windows"
  uploadsAnytime: ["upload", "upload outside windows"],
};

/** Column "where": not these in an access list. */
const SYSTEM_ONLY = ["systemAdmin", "userManager"];

const allow = (roles: readonly string[], act: Act) => roles.some((role) => MAY[role]?.includes(act) === true);

/**
 * "A decision needs: (role in the collection's access list OR a system-wide role) AND, when the session belongs to an
 * access key, the key's roles for that object AND, when the session has a scope, the scope's roles for that object."
 */
export function may(who: Subject, act: Act, collection: string): boolean {
  const inList = (who.lists[collection] ?? []).filter((role) => !SYSTEM_ONLY.includes(role));
  const ofUser = allow(inList, act) || allow(who.system, act);
  const ofKey = who.key === undefined || allow(who.key[collection] ?? [], act);
  const ofScope = who.scope === undefined || allow(who.scope[collection] ?? [], act);
  return ofUser && ofKey && ofScope;
}

/** "Listing versions needs upload or download." Who may neither gets the answer that there is no such collection. */
export function sees(who: Subject, collection: string): boolean {
  return may(who, "upload", collection) || may(who, "download", collection);
}

/** What comes of doing this to the collection. */
export function outcome(who: Subject, act: Act, collection: string): string {
  if (!sees(who, collection)) return "COLLECTION_NOT_FOUND";
  if (act === "upload outside windows" && may(who, "upload", collection)) {
    return may(who, act, collection) ? "ok" : "WINDOW_CLOSED";
  }
  return may(who, act === "upload outside windows" ? "upload" : act, collection) ? "ok" : "ACCESS_DENIED";
}

/**
 * "list (own; all with systemAdmin), revoke (own; any with systemAdmin)": access keys and scopes name collections, so
 * they have no system-wide right.
 */
export function isSystemAdmin(who: Subject): boolean {
  return who.system.includes("systemAdmin") && who.key === undefined && who.scope === undefined;
}

/** "userManager: see and manage users", for the system only. */
export function isUserManager(who: Subject): boolean {
  return who.system.includes("userManager") && who.key === undefined && who.scope === undefined;
}

/**
 * A session of the same user, by its access key: narrowed sessions handle themselves only, those of a key those of the
 * key only.
 */
export function handlesOwn(who: Subject, sameKey: boolean): boolean {
  return who.scope === undefined && (who.key === undefined || sameKey);
}
