import type { Principal } from "../domain/access.ts";
import { hasSystemRole } from "../domain/access.ts";
import { addressMatches } from "../domain/addresses.ts";
import { DomainError } from "../domain/errors.ts";
import type { ObjectGrant, User } from "../domain/objects.ts";
import type { ConfigSource } from "./ports.ts";
import type { Database, SessionRow } from "./repositories.ts";

/** Checks passwords. */
export interface PasswordHasher {
  /**
   * Whether the password has this hash. For an undefined hash it takes the time of a real check and says no.
   * @throws DomainError LOGIN_BUSY when too many checks are waiting.
   */
  verify(hash: string | undefined, password: string): Promise<boolean>;
  /** Makes a PHC-encoded argon2id hash. */
  hash(password: string): Promise<string>;
}

/** Signs and checks tokens. */
export interface TokenSigner {
  /** Makes a token for a user that is valid until then. Every token differs. */
  sign(claims: { subject: string; issuedAt: Date; expiresAt: Date }): Promise<string>;
  /** Whether this installation signed the token and it has not expired. */
  verify(token: string, now: Date): Promise<boolean>;
}

/** What the use cases of sessions need. */
export interface SessionDeps {
  readonly database: Database;
  readonly config: ConfigSource;
  readonly passwords: PasswordHasher;
  readonly tokens: TokenSigner;
  /** SHA-256 in hexadecimal. */
  readonly sha256: (text: string) => string;
  /** How long a session is valid, in milliseconds. */
  readonly sessionMs: number;
}

/** A session that was just issued. */
export interface IssuedSession {
  readonly token: string;
  readonly session: SessionRow;
}

/** What is asked for at login. */
export interface LoginInput {
  /** `user` or `user$key`. */
  readonly username: string;
  readonly password: string;
  readonly description: string;
  readonly scope: readonly ObjectGrant[];
  /** Where the call comes from. */
  readonly address: string;
}

/**
 * Checks a password and issues a session. An unknown user or access key, a wrong password, a deactivated user and a wrong address have the same
 * answer in the same time: one hash is computed in every case.
 */
export async function login(deps: SessionDeps, input: LoginInput): Promise<IssuedSession> {
  const separator = input.username.lastIndexOf("$");
  const name = separator < 0 ? input.username : input.username.slice(0, separator);
  const accessKey = separator < 0 ? "" : input.username.slice(separator + 1);
  const user = deps.config.current().users.get(name);
  const hash = separator < 0 ? user?.passwordHash : user?.accessKeys.find((k) => k.name === accessKey)?.passwordHash;
  const passwordRight = await deps.passwords.verify(hash, input.password);
  if (!passwordRight || user === undefined || !mayEnter(user, input.address)) {
    throw new DomainError(
      "CREDENTIALS_INVALID",
      "login failed: unknown user or access key, wrong password, deactivated user, or an address it may not come from",
    );
  }
  return await issue(deps, {
    userName: name,
    accessKey,
    scope: input.scope,
    description: input.description,
    address: input.address,
  });
}

/** Issues another session like the caller's. */
export async function refreshSession(deps: SessionDeps, principal: Principal, address: string): Promise<IssuedSession> {
  const description = await deps.database.transaction(
    async (tx) => (await tx.sessions.find(principal.sessionId))?.description ?? "",
  );
  return await issue(deps, {
    userName: principal.user.name,
    accessKey: principal.accessKey,
    scope: principal.scope,
    description,
    address,
  });
}

async function issue(
  deps: SessionDeps,
  of: Pick<SessionRow, "userName" | "accessKey" | "scope" | "description" | "address">,
): Promise<IssuedSession> {
  const now = await deps.database.read(async (tx) => tx.now);
  // Whole seconds, as JSON Web Tokens have them.
  const expiresAt = new Date(Math.floor((now.getTime() + deps.sessionMs) / 1000) * 1000);
  const token = await deps.tokens.sign({ subject: of.userName, issuedAt: now, expiresAt });
  const session: SessionRow = { id: deps.sha256(token), ...of, createdAt: now, expiresAt, revokedAt: null };
  await deps.database.transaction(async (tx) => await tx.sessions.insert(session));
  return { token, session };
}

/** Who is behind a token. Every way it can be wrong has the same answer. */
export async function authenticate(deps: SessionDeps, token: string, address: string): Promise<Principal> {
  const { session, now } = await deps.database.read(async (tx) => ({
    session: await tx.sessions.find(deps.sha256(token)),
    now: tx.now,
  }));
  const user = session === undefined ? undefined : deps.config.current().users.get(session.userName);
  const valid =
    (await deps.tokens.verify(token, now)) &&
    session !== undefined &&
    session.revokedAt === null &&
    session.expiresAt > now &&
    user !== undefined &&
    (session.accessKey === "" || user.accessKeys.some((k) => k.name === session.accessKey)) &&
    mayEnter(user, address);
  if (!valid) {
    throw new DomainError(
      "SESSION_INVALID",
      "the session is not valid: expired, revoked, or its user is gone or deactivated; log in again",
    );
  }
  return { user, accessKey: session.accessKey, scope: session.scope, sessionId: session.id };
}

function mayEnter(user: User, address: string): boolean {
  return !user.deactivated && (user.restrictByIp.length === 0 || addressMatches(address, user.restrictByIp));
}

/** The caller's own session. */
export async function whoAmI(deps: SessionDeps, principal: Principal): Promise<SessionRow> {
  return (await deps.database.transaction(async (tx) => await tx.sessions.find(principal.sessionId)))!;
}

/** Lists valid sessions, newest first, of oneself or, with systemAdmin, of another user. */
export async function listSessions(
  deps: SessionDeps,
  principal: Principal,
  input: { user: string; after: { createdAt: Date; id: string } | undefined; pageSize: number },
): Promise<{ sessions: SessionRow[]; next: SessionRow | undefined }> {
  const userName = input.user === "" ? principal.user.name : input.user;
  if (userName !== principal.user.name && !hasSystemRole(principal, "systemAdmin")) {
    throw new DomainError("ACCESS_DENIED", "only systemAdmin may list the sessions of others", {
      metadata: { action: "list-sessions" },
    });
  }
  const page = await deps.database.transaction(
    async (tx) => await tx.sessions.listValid(userName, tx.now, input.after, input.pageSize + 1),
  );
  // A narrowed session or an access key must not learn of, or go on to end, what its user does elsewhere.
  const sessions = page.slice(0, input.pageSize).filter((s) => mayHandle(principal, s));
  return { sessions, next: page.length > input.pageSize ? page[input.pageSize - 1] : undefined };
}

/** Ends a session: one's own, or with systemAdmin any. Somebody else's and none at all have the same answer. */
export async function revokeSession(deps: SessionDeps, principal: Principal, sessionId: string): Promise<string> {
  const id = sessionId === "" ? principal.sessionId : sessionId;
  await deps.database.transaction(async (tx) => {
    const session = await tx.sessions.find(id);
    if (session === undefined || !mayHandle(principal, session)) {
      throw new DomainError(
        "SESSION_NOT_FOUND",
        "there is no such session of yours; list the sessions to see what there is",
      );
    }
    await tx.sessions.revoke(id, tx.now);
    await tx.audit({
      kind: "session.revoked",
      actor: `user:${principal.user.name}`,
      collectionName: "",
      details: { session_id: id, user: session.userName },
    });
  });
  return id;
}

function mayHandle(principal: Principal, session: SessionRow): boolean {
  if (session.id === principal.sessionId || hasSystemRole(principal, "systemAdmin")) return true;
  if (session.userName !== principal.user.name || principal.scope.length > 0) return false;
  return principal.accessKey === "" || principal.accessKey === session.accessKey;
}
