import { type CollectionRights, hasSystemRole, namedRights, type Principal } from "../../domain/access.ts";
import { addressMatches } from "../../domain/addresses.ts";
import type { ObjectGrant, User } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { passwordCosts } from "../../domain/password-cost.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, SessionRow } from "../ports/database.ts";
import type { PasswordHasher } from "../ports/passwords.ts";
import type { TokenSigner } from "../ports/tokens.ts";
import type { Log } from "../settings.ts";
import type { LoginBudget } from "./login-budget.ts";

/** The ports and settings of logins, authentication and sessions. */
export interface SessionDeps {
  readonly database: Database;
  readonly config: ConfigSource;
  readonly passwords: PasswordHasher;
  readonly logins: Pick<LoginBudget, "giveBack">;
  readonly log: Log;
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
  /** The caller is gone. */
  readonly signal?: AbortSignal;
}

/**
 * Checks a password and issues a session. An unknown user or access key, a wrong password, a deactivated user and a
 * wrong address have the same answer after the same work: the same hashes are computed in every case. The call took
 * from the budget of its address when it was admitted; what is no failure is given back here.
 */
export async function login(deps: SessionDeps, input: LoginInput): Promise<IssuedSession> {
  const separator = input.username.lastIndexOf("$");
  const name = separator < 0 ? input.username : input.username.slice(0, separator);
  const accessKey = separator < 0 ? "" : input.username.slice(separator + 1);
  let failed = false;
  try {
    const configuration = deps.config.current();
    const user = configuration.users.get(name);
    const owner = separator < 0 ? user : user?.accessKeys.find((k) => k.name === accessKey);
    const passwordRight = await deps.passwords.verify(owner?.passwordHash, input.password, {
      costs: passwordCosts(configuration),
      ...(input.signal === undefined ? {} : { signal: input.signal }),
    });
    if (!passwordRight || user === undefined || !mayEnter(user, input.address)) {
      failed = true;
      // A name nobody has is not logged: people type their password there.
      const who = { user: user?.name ?? "", access_key: user === undefined ? "" : accessKey.slice(0, 63) };
      const why = passwordRight ? "deactivated, or from this address not allowed" : "no such user, key or password";
      deps.log.warn({ ...who, address: input.address, why }, "login failed");
      throw new DomainError(
        "CREDENTIALS_INVALID",
        "login failed: unknown user or access key, wrong password, deactivated user, or an address it may not " +
          "come from",
      );
    }
  } finally {
    if (!failed) await deps.logins.giveBack(input.address);
  }
  const issued = await issue(deps, {
    userName: name,
    accessKey,
    scope: input.scope,
    description: input.description,
    address: input.address,
  });
  deps.log.info({ user: name, access_key: accessKey, address: input.address, session_id: issued.session.id }, "login");
  return issued;
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

/** What it takes to find a token's owner. */
export type AuthenticationDeps = Pick<SessionDeps, "database" | "config" | "tokens" | "sha256">;

/** The owner of a token. Every way it can be wrong has the same answer. */
export async function authenticate(deps: AuthenticationDeps, token: string, address: string): Promise<Principal> {
  const { session, now } = await deps.database.read(async (tx) => ({
    session: await tx.sessions.find(deps.sha256(token)),
    now: tx.now,
  }));
  const valid =
    (await deps.tokens.verify(token, now)) &&
    session !== undefined &&
    session.revokedAt === null &&
    session.expiresAt > now;
  if (!valid) throw sessionInvalid();
  const user = standingUser(deps.config, session, address);
  return { user, accessKey: session.accessKey, scope: session.scope, sessionId: session.id };
}

/**
 * The caller as the configuration in force has it, for calls that take long: whoever was deactivated or removed
 * meanwhile must not go on.
 * @throws DomainError SESSION_INVALID
 */
export function stillStanding(config: ConfigSource, principal: Principal, address: string): Principal {
  const user = standingUser(config, { userName: principal.user.name, accessKey: principal.accessKey }, address);
  return { ...principal, user };
}

function standingUser(
  config: ConfigSource,
  { userName, accessKey }: Pick<SessionRow, "userName" | "accessKey">,
  address: string,
): User {
  const user = config.current().users.get(userName);
  const keyStands = accessKey === "" || user?.accessKeys.some((k) => k.name === accessKey) === true;
  if (user === undefined || !keyStands || !mayEnter(user, address)) throw sessionInvalid();
  return user;
}

function sessionInvalid(): DomainError {
  return new DomainError(
    "SESSION_INVALID",
    "the session is not valid: expired, revoked, or its user is gone or deactivated; log in again",
  );
}

function mayEnter(user: User, address: string): boolean {
  return !user.deactivated && (user.restrictByIp.length === 0 || addressMatches(address, user.restrictByIp));
}

/** Collections that the answer about a session names at most. */
const MAX_RIGHTS = 1000;

/** The caller's own session, and what it may do where its scope or its access key names collections. */
export async function whoAmI(
  deps: SessionDeps,
  principal: Principal,
): Promise<{ session: SessionRow; rights: readonly CollectionRights[] }> {
  const session = (await deps.database.transaction(async (tx) => await tx.sessions.find(principal.sessionId)))!;
  return { session, rights: namedRights(principal, deps.config.current().collections).slice(0, MAX_RIGHTS) };
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
