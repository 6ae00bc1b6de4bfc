import { formatDuration } from "@strongroom/protocol/sizes";
import type { Principal } from "../../domain/access.ts";
import { isBeyond } from "../../domain/clock.ts";
import type { ObjectGrant, User } from "../../domain/configuration.ts";
import { DomainError, invalidField } from "../../domain/errors.ts";
import { passwordCosts } from "../../domain/password-cost.ts";
import type { AuditNotes } from "../audit/trail.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, SessionRow } from "../ports/database.ts";
import type { PasswordHasher } from "../ports/passwords.ts";
import type { TokenSigner } from "../ports/tokens.ts";
import type { Log } from "../settings.ts";
import { type CredentialName, credentialFingerprint, credentialHash, credentialName, mayEnter } from "./credential.ts";
import type { LoginBudget } from "./login-budget.ts";

/** The ports and settings of logins, authentication and sessions. */
export interface SessionDeps {
  readonly database: Database;
  readonly config: ConfigSource;
  readonly passwords: PasswordHasher;
  readonly logins: Pick<LoginBudget, "giveBack">;
  readonly log: Log;
  readonly audit?: AuditNotes | undefined;
  readonly tokens: TokenSigner;
  /** SHA-256 in hexadecimal. */
  readonly sha256: (text: string) => string;
  /** How long a session is valid, in milliseconds. */
  readonly sessionMs: number;
  /** How long after its login a session can be valid at most, however often it is refreshed; in milliseconds. */
  readonly sessionLifetimeMs: number;
  /** The longest life a login may ask for, in milliseconds; {@link SessionDeps.sessionMs} when left out. */
  readonly sessionMaxMs?: number | undefined;
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
  /** How long the session is to last, refreshes included, in milliseconds; as long as usual when left out. */
  readonly lifetimeMs?: number | undefined;
  /** Where the call comes from. */
  readonly address: string;
  /** Name of the call in logs and in the audit log. */
  readonly requestId?: string;
  /** The caller is gone. */
  readonly signal?: AbortSignal;
}

/**
 * Checks a password and issues a session. An unknown user or access key, a wrong password, a deactivated user and a
 * wrong address have the same answer after the same work: the same hashes are computed in every case. The call took
 * from the budget of its address when it was admitted; what is no failure is given back here.
 * @throws DomainError INVALID_REQUEST for a life that the server does not give, before the password is looked at
 */
export async function login(deps: SessionDeps, input: LoginInput): Promise<IssuedSession> {
  requireLifetime(input.lifetimeMs, deps.sessionMaxMs ?? deps.sessionMs);
  const { userName: name, accessKey } = credentialName(input.username);
  let failed = false;
  let passwordHash: string | undefined;
  try {
    const configuration = deps.config.current();
    const user = configuration.users.get(name);
    // A name that ends with "$" has no key, and is nobody's.
    passwordHash = input.username.endsWith("$") ? undefined : credentialHash(user, accessKey);
    const passwordRight = await deps.passwords.verify(passwordHash, input.password, {
      costs: passwordCosts(configuration),
      ...(input.signal === undefined ? {} : { signal: input.signal }),
    });
    if (!passwordRight || user === undefined || !mayEnter(user, accessKey, input.address)) {
      failed = true;
      // A name nobody has is not logged: people type their password there.
      const who = { user: user?.name ?? "", access_key: user === undefined ? "" : accessKey.slice(0, 63) };
      const why = passwordRight ? "deactivated, or from this address not allowed" : "no such user, key or password";
      deps.log.warn({ ...who, address: input.address, why }, "login failed");
      deps.audit?.note({
        kind: "login.failed",
        actor: user === undefined ? "server" : { userName: user.name, accessKey: who.access_key, sessionId: "" },
        collectionName: "",
        outcome: "refused",
        reason: why,
        address: input.address,
        requestId: input.requestId ?? "",
        details: { known_user: user === undefined ? "no" : "yes" },
      });
      throw new DomainError(
        "CREDENTIALS_INVALID",
        "login failed: unknown user or access key, wrong password, deactivated user, or an address it may not " +
          "come from",
      );
    }
  } finally {
    if (!failed) await deps.logins.giveBack(input.address);
  }
  // The password may have been changed while it was hashed; who changed it ends the sessions that there are by then.
  if (credentialHash(deps.config.current().users.get(name), accessKey) !== passwordHash) throw sessionInvalid();
  const fingerprint = fingerprintOf(deps, { userName: name, accessKey }, passwordHash);
  const { scope, description, address, lifetimeMs, requestId } = input;
  const of = { userName: name, accessKey, fingerprint, scope, description, address };
  const issued = await issue(deps, of, { lifetimeMs, requestId });
  deps.log.info({ user: name, access_key: accessKey, address: input.address, session_id: issued.session.id }, "login");
  return issued;
}

/**
 * Issues another session like the caller's, of the same chain. It ends when the chain does: after the life that was
 * asked for at the login, else `sessionLifetimeMs` after it.
 * @throws DomainError SESSION_INVALID when it was revoked meanwhile, or a new one would not last longer
 */
export async function refreshSession(deps: SessionDeps, principal: Principal, address: string): Promise<IssuedSession> {
  const { user, accessKey, scope, sessionId } = principal;
  const fingerprint = fingerprintOf(deps, { userName: user.name, accessKey }, credentialHash(user, accessKey));
  const parent = await deps.database.read(async (tx) => await tx.sessions.find(sessionId));
  if (parent === undefined) throw sessionInvalid();
  const { description } = parent;
  const of = { userName: user.name, accessKey, fingerprint, scope, description, address };
  return await issue(deps, of, { parent, requestId: principal.origin?.requestId });
}

/** A session shorter than this is of no use to anybody, in milliseconds. */
const LEAST_LIFETIME_MS = 60_000;

function requireLifetime(lifetimeMs: number | undefined, mostMs: number): void {
  if (lifetimeMs === undefined || (lifetimeMs >= LEAST_LIFETIME_MS && lifetimeMs <= mostMs)) return;
  throw invalidField(
    "lifetime",
    `expected ${formatDuration(LEAST_LIFETIME_MS)} to ${formatDuration(mostMs)}, the longest that this server gives ` +
      `(its option --session-duration-max), got ${formatDuration(lifetimeMs)}`,
  );
}

function fingerprintOf(
  { sha256 }: Pick<SessionDeps, "sha256">,
  name: CredentialName,
  passwordHash: string | undefined,
): string {
  const fingerprint = credentialFingerprint(sha256, name, passwordHash);
  // Without one the session would count as one from before there were any.
  if (fingerprint === undefined) throw sessionInvalid();
  return fingerprint;
}

/** Valid sessions of one user and access key, at most; the oldest end for new ones. Ended ones are kept as many. */
export const MAX_SESSIONS = 1000;

async function issue(
  deps: SessionDeps,
  of: Pick<SessionRow, "userName" | "accessKey" | "scope" | "description" | "address"> & { fingerprint: string },
  from: {
    readonly parent?: SessionRow;
    readonly lifetimeMs?: number | undefined;
    readonly requestId?: string | undefined;
  },
): Promise<IssuedSession> {
  const { parent, lifetimeMs, requestId = "" } = from;
  const now = await deps.database.read(async (tx) => tx.now);
  const chainBeganAt = parent?.chainBeganAt ?? now;
  const asked = lifetimeMs === undefined ? null : new Date(now.getTime() + lifetimeMs);
  const chainEndsAt = parent === undefined ? asked : parent.chainEndsAt;
  const usualMs = now.getTime() + (lifetimeMs ?? deps.sessionMs);
  const chainEndMs = chainEndsAt?.getTime() ?? chainBeganAt.getTime() + deps.sessionLifetimeMs;
  // Whole seconds, as JSON Web Tokens have them.
  const expiresAt = new Date(Math.floor(Math.min(usualMs, chainEndMs) / 1000) * 1000);
  if (parent !== undefined && chainEndMs < usualMs && expiresAt <= parent.expiresAt) {
    throw new DomainError(
      "SESSION_INVALID",
      "the session cannot be prolonged beyond the time that the server allows after a login; log in again",
    );
  }
  const token = await deps.tokens.sign({ subject: of.userName, issuedAt: now, expiresAt });
  const id = deps.sha256(token);
  const chainId = parent?.chainId ?? id;
  const chain = { chainId, chainBeganAt, chainEndsAt };
  const session: SessionRow = { id, ...chain, ...of, createdAt: now, expiresAt, revokedAt: null };
  await deps.database.transaction(async (tx) => {
    // Held until the new row is there: whoever revokes the chain either sees that row, or was seen here.
    if (parent !== undefined && (await tx.sessions.lock(parent.id))?.revokedAt !== null) throw sessionInvalid();
    await tx.sessions.insert(session);
    await tx.audit({
      kind: parent === undefined ? "session.created" : "session.refreshed",
      actor: { ...of, sessionId: parent?.id ?? id },
      collectionName: "",
      object: id,
      address: of.address,
      requestId,
      details: { session_id: id, expires_at: expiresAt.toISOString(), description: of.description },
    });
    // A refresh at the limit ends the session it came from, never others: a narrowed one must not log its user out.
    const { userName, accessKey } = of;
    await tx.sessions.bound({ userName, accessKey }, tx.now, MAX_SESSIONS, parent?.id);
  });
  return { token, session };
}

/** What it takes to find a token's owner. */
export type AuthenticationDeps = Pick<SessionDeps, "database" | "config" | "tokens" | "sha256">;

/** The owner of a token. Every way it can be wrong has the same answer. */
export async function authenticate(deps: AuthenticationDeps, token: string, address: string): Promise<Principal> {
  const { session, now } = await findSession(deps.database, deps.sha256(token));
  // First, so that a token that was never issued costs no signature, and no look for the key that it names.
  if (session === undefined || session.revokedAt !== null || session.expiresAt <= now) throw sessionInvalid();
  const scope = (await deps.tokens.verify(token, now)) ? session.scope : await oldScope(deps, token, session, now);
  const user = standingUser(deps.config, session, address);
  // Refused and no more: another server may have the newer configuration, and this one a late or half-updated one.
  const { fingerprint, accessKey } = session;
  if (
    fingerprint !== null &&
    fingerprint !== credentialFingerprint(deps.sha256, session, credentialHash(user, accessKey))
  )
    throw sessionInvalid();
  return { user, accessKey: session.accessKey, scope, sessionId: session.id };
}

/**
 * What a token of Backup Repository narrows its session to: only the token says it. It is valid for the user and access
 * key whose session was imported.
 * @throws DomainError SESSION_INVALID for any other token
 */
async function oldScope(
  { tokens }: Pick<SessionDeps, "tokens">,
  token: string,
  session: SessionRow,
  now: Date,
): Promise<readonly ObjectGrant[]> {
  const claims = await tokens.verifyOld?.(token, now);
  if (claims?.userName !== session.userName || claims.accessKey !== session.accessKey) throw sessionInvalid();
  return session.scope.length > 0 ? session.scope : claims.scope;
}

/** A session, which a clock that was ahead must not have made longer than sessions are. */
async function findSession(database: Database, id: string): Promise<{ session: SessionRow | undefined; now: Date }> {
  const read = async () => await database.read(async (tx) => ({ session: await tx.sessions.find(id), now: tx.now }));
  const found = await read();
  if (found.session === undefined || !isBeyond(found.session.createdAt, found.now)) return found;
  await database.transaction(async (tx) => await tx.sessions.healTimes(tx.now, id));
  return await read();
}

/**
 * The caller as the configuration in force has it, for calls that take long: whoever was deactivated or removed
 * meanwhile, or has another password, must not go on.
 * @throws DomainError SESSION_INVALID
 */
export function stillStanding(config: ConfigSource, principal: Principal, address: string): Principal {
  const { accessKey } = principal;
  const user = standingUser(config, { userName: principal.user.name, accessKey }, address);
  if (credentialHash(user, accessKey) !== credentialHash(principal.user, accessKey)) throw sessionInvalid();
  return { ...principal, user };
}

/**
 * As {@link stillStanding}, and the session was not ended meanwhile: for a call that goes on for hours, asked now and
 * then. That its token has expired since the call began does not end the call.
 * @throws DomainError SESSION_INVALID
 */
export async function requireStanding(
  deps: Pick<SessionDeps, "database" | "config">,
  principal: Principal,
  address: string,
): Promise<Principal> {
  const session = await deps.database.read(async (tx) => await tx.sessions.find(principal.sessionId));
  if (session === undefined || session.revokedAt !== null) throw sessionInvalid();
  return stillStanding(deps.config, principal, address);
}

function standingUser(
  config: ConfigSource,
  { userName, accessKey }: Pick<SessionRow, "userName" | "accessKey">,
  address: string,
): User {
  const user = config.current().users.get(userName);
  if (user === undefined || !mayEnter(user, accessKey, address)) throw sessionInvalid();
  return user;
}

function sessionInvalid(): DomainError {
  return new DomainError(
    "SESSION_INVALID",
    "the session is not valid: expired, revoked, or its user is gone, deactivated or has another password; log " +
      "in again",
  );
}
