import { type CollectionRights, hasSystemRole, namedRights, type Principal } from "../../domain/access.ts";
import type { Configuration } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { cutPage } from "../../domain/page.ts";
import type { SessionFilter, SessionRow } from "../ports/database.ts";
import { credentialName, loginName } from "./credential.ts";
import type { SessionDeps } from "./sessions.ts";

/** What listing and ending sessions needs. */
export type ManageSessionsDeps = Pick<SessionDeps, "database" | "config">;

/** Collections that the answer about a session names at most. */
const MAX_RIGHTS = 1000;

/** The caller's own session, and what it may do where its scope or its access key names collections. */
export async function whoAmI(
  deps: ManageSessionsDeps,
  principal: Principal,
): Promise<{ session: SessionRow; rights: readonly CollectionRights[] }> {
  const found = (await deps.database.transaction(async (tx) => await tx.sessions.find(principal.sessionId)))!;
  // Of a token of Backup Repository the row does not know it.
  const session = { ...found, scope: principal.scope };
  return { session, rights: namedRights(principal, deps.config.current().collections).slice(0, MAX_RIGHTS) };
}

/** Lists valid sessions, newest first, of oneself or, with systemAdmin, of another user or of all. */
export async function listSessions(
  deps: ManageSessionsDeps,
  principal: Principal,
  input: {
    /** `user`, `user$key`, or empty for oneself. */
    readonly user: string;
    readonly allUsers?: boolean;
    readonly after: { createdAt: Date; id: string } | undefined;
    readonly pageSize: number;
  },
): Promise<{ sessions: SessionRow[]; next: SessionRow | undefined }> {
  const of = input.allUsers ? {} : filterOf(principal, input.user);
  if (!maySelect(principal, of)) throw ofOthersDenied("list-sessions");
  const rows = await deps.database.transaction(
    async (tx) => await tx.sessions.listValid(of, tx.now, input.after, input.pageSize + 1),
  );
  // Sessions outlive their user by moments, so one that is gone may still have some.
  if (rows.length === 0 && input.after === undefined && principal.scope.length === 0)
    requireKnown(deps.config.current(), of);
  // A narrowed session or an access key must not learn of, or go on to end, what its user does elsewhere.
  const { page, more } = cutPage(rows, input.pageSize, bytesOfSession);
  const sessions = page.filter((s) => mayHandle(principal, s));
  return { sessions, next: more ? page.at(-1) : undefined };
}

/** What its texts take in a list. */
function bytesOfSession({ description, scope }: SessionRow): number {
  return scope.reduce((sum, { name, roles }) => sum + name.length * 3 + roles.length + 16, description.length * 3);
}

/**
 * Ends a session and every other one of its chain: what was refreshed from it, and what it was refreshed from. One's
 * own, or with systemAdmin any. Somebody else's and none at all have the same answer.
 */
export async function revokeSession(
  deps: ManageSessionsDeps,
  principal: Principal,
  sessionId: string,
): Promise<string> {
  const id = sessionId === "" ? principal.sessionId : sessionId;
  await deps.database.transaction(async (tx) => {
    const session = await tx.sessions.find(id);
    if (session === undefined || !mayHandle(principal, session)) {
      throw new DomainError(
        "SESSION_NOT_FOUND",
        "there is no such session of yours; list the sessions to see what there is",
      );
    }
    await tx.sessions.revoke({ chainId: session.chainId }, tx.now);
    await tx.audit({
      kind: "session.revoked",
      actor: principal,
      collectionName: "",
      object: id,
      details: { session_id: id, user: session.userName },
    });
  });
  return id;
}

/**
 * Ends all valid sessions of oneself, the one of this call among them, or, with systemAdmin, of another user. Those of
 * an access key end the sessions of that key.
 * @param user `user` with all its keys, `user$key`, or empty for oneself.
 * @returns how many were ended.
 */
export async function revokeSessions(deps: ManageSessionsDeps, principal: Principal, user: string): Promise<number> {
  const of = filterOf(principal, user);
  if (!maySelect(principal, of) || principal.scope.length > 0) throw ofOthersDenied("revoke-sessions");
  return await deps.database.transaction(async (tx) => {
    const count = await tx.sessions.revoke(of, tx.now);
    if (count === 0) requireKnown(deps.config.current(), of);
    await tx.audit({
      kind: "sessions.revoked",
      actor: principal,
      collectionName: "",
      details: { user: of.userName, access_key: of.accessKey ?? "", sessions: `${count}` },
    });
    return count;
  });
}

type NamedFilter = SessionFilter & { readonly userName: string };

/** A user means itself with all its keys; for the session of an access key its user is that key alone. */
function filterOf(principal: Principal, user: string): NamedFilter {
  const { userName, accessKey } = credentialName(user === "" ? principal.user.name : user);
  const key = accessKey === "" && userName === principal.user.name ? principal.accessKey : accessKey;
  return key === "" ? { userName } : { userName, accessKey: key };
}

function maySelect(principal: Principal, { userName, accessKey }: SessionFilter): boolean {
  if (hasSystemRole(principal, "systemAdmin")) return true;
  if (userName !== principal.user.name) return false;
  return principal.accessKey === "" || accessKey === principal.accessKey;
}

/** Only systemAdmin gets here with a name that is not its own, so nobody else learns who is known. */
function requireKnown({ users }: Configuration, { userName, accessKey }: SessionFilter): void {
  if (userName === undefined) return;
  const user = users.get(userName);
  if (user !== undefined && (accessKey === undefined || user.accessKeys.some((key) => key.name === accessKey))) return;
  const what = user === undefined ? "user" : "access key";
  throw new DomainError(
    "USER_NOT_FOUND",
    `there is no ${what} "${loginName({ userName, accessKey: accessKey ?? "" })}", nor a session of it; check the name`,
    { metadata: { user: loginName({ userName, accessKey: accessKey ?? "" }) } },
  );
}

function ofOthersDenied(action: "list-sessions" | "revoke-sessions"): DomainError {
  const message =
    action === "list-sessions"
      ? "only systemAdmin may list the sessions of others"
      : "only systemAdmin may end the sessions of others, and a narrowed session only itself";
  return new DomainError("ACCESS_DENIED", message, { metadata: { action } });
}

function mayHandle(principal: Principal, session: SessionRow): boolean {
  if (session.id === principal.sessionId || hasSystemRole(principal, "systemAdmin")) return true;
  if (session.userName !== principal.user.name || principal.scope.length > 0) return false;
  return principal.accessKey === "" || principal.accessKey === session.accessKey;
}
