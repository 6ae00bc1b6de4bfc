import {
  MAX_LOGIN_NAME_LENGTH,
  MAX_NAME_LENGTH,
  MAX_SCOPE_ELEMENTS,
  MAX_SCOPE_ROLES,
  PAGE,
} from "@strongroom/protocol/limits";
import { parseDuration } from "@strongroom/protocol/sizes";
import type { SessionRow } from "../../app/ports/database.ts";
import { findUser } from "../../app/sessions/find-user.ts";
import { listSessions, revokeSession, whoAmI } from "../../app/sessions/manage-sessions.ts";
import { type IssuedSession, login, refreshSession, type SessionDeps } from "../../app/sessions/sessions.ts";
import { type Call, callerOf } from "../../calls/call.ts";
import type { Calls } from "../../calls/calls.ts";
import { HTTP_API_ROUTES, type HttpApiRoute } from "../../calls/routes.ts";
import { hasSystemRole } from "../../domain/access.ts";
import { type ObjectGrant, ROLES, type Role } from "../../domain/configuration.ts";
import { DomainError, invalidField } from "../../domain/errors.ts";
import { wholeBody } from "../request-body.ts";
import { MAX_PASSWORD_LENGTH } from "../session-service.ts";
import { textOf } from "../shapes.ts";
import { rfc3339, success, type Wording } from "./answers.ts";
import type { ApiRoute } from "./api-call.ts";

/** The ports of sessions over the HTTP API. */
export type SessionRoutesDeps = SessionDeps;

type SessionRoute = Extract<HttpApiRoute, `${string} /api/auth/${string}`>;

const asTheErrorSays = (): Wording => () => undefined;

/** Logins, sessions and users. */
export function sessionRoutes(deps: SessionRoutesDeps, calls: Calls): Record<SessionRoute, ApiRoute> {
  return {
    "POST /api/auth/login": {
      async answer({ call, req, signal }) {
        const { message: most, bodyMs: withinMs } = HTTP_API_ROUTES["POST /api/auth/login"];
        let body: Uint8Array = new Uint8Array();
        for await (const bytes of wholeBody(req, { most, withinMs }, () => calls.bodyRead(call))) body = bytes;
        const form = formOf(Buffer.from(body).toString(), req.headers["content-type"] ?? "");
        const issued = await login(deps, {
          username: textOf("username", form.username, MAX_LOGIN_NAME_LENGTH),
          password: form.password,
          description: "Login",
          scope: form.scope,
          lifetimeMs: form.lifetimeMs,
          address: call.address,
          requestId: call.requestId,
          signal,
        });
        return success(issuedObject(issued));
      },
      wording: () => (error) =>
        error instanceof DomainError && error.reason === "CREDENTIALS_INVALID" && error.metadata.field === undefined
          ? { status: 401, error: "incorrect Username or Password" }
          : undefined,
    },

    "GET /api/auth/refresh_token": {
      async answer({ call }) {
        const issued = await refreshSession(deps, callerOf(call), call.address);
        const data = issuedObject(issued);
        return success(data, { code: 200, token: data.token, expire: data.expire });
      },
      wording: asTheErrorSays,
    },

    "GET /api/auth/whoami": {
      async answer({ call }) {
        const principal = callerOf(call);
        const { session } = await whoAmI(deps, principal);
        const { email, roles } = principal.user;
        return success({
          email,
          permissions: roles,
          sessionId: session.id,
          grantedAccess: sessionObject(session),
        });
      },
      wording: asTheErrorSays,
    },

    "GET /api/auth/user/:name": {
      async answer({ call, params }) {
        const { email, roles } = findUser(deps, callerOf(call), params.name!.slice(0, MAX_LOGIN_NAME_LENGTH + 1));
        return success({ email, permissions: roles });
      },
      wording: asTheErrorSays,
    },

    "DELETE /api/auth/logout": {
      async answer({ call, query }) {
        const asked = query.get("sessionId") ?? "";
        if (asked !== "" && !/^[0-9a-f]{64}$/.test(asked)) throw sessionNotFound();
        const sessionId = await revokeSession(deps, callerOf(call), asked);
        return success({ message: "JWT was revoked", sessionId });
      },
      wording:
        ({ call }) =>
        (error) =>
          // Whoever may end only its own learns nothing of the others.
          isReason(error, "SESSION_NOT_FOUND") && !isAdmin(call)
            ? { status: 403, error: "you don't have permissions to revoke session of other user" }
            : undefined,
    },

    "GET /api/auth/token": {
      async answer({ call, query }) {
        const user = textOf("userName", query.get("userName") ?? "", MAX_LOGIN_NAME_LENGTH);
        return success({ grantedAccesses: (await allSessions(deps, call, user)).map(sessionObject) });
      },
      wording: () => (error) =>
        isReason(error, "ACCESS_DENIED") ? { status: 403, error: "no permissions to act as other user" } : undefined,
    },
  };
}

const isReason = (error: Error, reason: string) => error instanceof DomainError && error.reason === reason;

const isAdmin = ({ principal }: Call) => principal !== undefined && hasSystemRole(principal, "systemAdmin");

function sessionNotFound(): DomainError {
  return new DomainError("SESSION_NOT_FOUND", "there is no such session; list the sessions to see what there is");
}

/** Sessions of one answer; more of one user are older than anybody looks at here. */
const MOST_SESSIONS = 2000;

async function allSessions(deps: SessionDeps, call: Call, user: string): Promise<SessionRow[]> {
  const all: SessionRow[] = [];
  for (let after: { createdAt: Date; id: string } | undefined; all.length < MOST_SESSIONS; ) {
    const { sessions, next } = await listSessions(deps, callerOf(call), { user, after, pageSize: PAGE.most });
    all.push(...sessions);
    if (next === undefined) break;
    after = next;
  }
  return all.slice(0, MOST_SESSIONS);
}

function issuedObject({ token, session }: IssuedSession) {
  return {
    token,
    sessionId: session.id,
    expire: rfc3339(session.expiresAt),
    msg: "Use this sessionId to revoke this token anytime",
  };
}

function sessionObject(session: SessionRow) {
  return {
    id: session.id,
    expiresAt: rfc3339(session.expiresAt),
    deactivated: session.revokedAt !== null,
    description: session.description,
    requesterIP: session.address,
    user: session.userName,
    accessKeyName: session.accessKey,
    CreatedAt: rfc3339(session.createdAt),
    UpdatedAt: rfc3339(session.revokedAt ?? session.createdAt),
    DeletedAt: null,
  };
}

interface LoginForm {
  readonly username: string;
  readonly password: string;
  readonly scope: readonly ObjectGrant[];
  /** How long the session is to last; as long as usual when left out. */
  readonly lifetimeMs: number | undefined;
}

/** Reads what a login sends: JSON, or a form. */
function formOf(text: string, contentType: string): LoginForm {
  const isForm = /^application\/x-www-form-urlencoded\b/i.test(contentType);
  const fields = anyCase(isForm ? Object.fromEntries(new URLSearchParams(text)) : objectOf(text), "");
  const { username, password } = fields;
  const misspelled = Object.keys(fields).find((name) => name.includes("scope") && name !== "operationsscope");
  if (misspelled !== undefined) throw invalidField(misspelled, "expected operationsScope for the scope of the session");
  if (typeof username !== "string" || typeof password !== "string" || username === "" || password === "")
    throw new DomainError("CREDENTIALS_INVALID", "missing Username or Password", { metadata: { field: "username" } });
  if (password.length > MAX_PASSWORD_LENGTH)
    throw invalidField("password", `expected at most ${MAX_PASSWORD_LENGTH} characters`);
  return { username, password, scope: scopeOf(fields.operationsscope), lifetimeMs: lifetimeOf(fields.lifetime) };
}

/** A field of this project's own: `12h`, `90d`. */
function lifetimeOf(value: unknown): number | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  try {
    if (typeof value === "string" && value.length < 32) return parseDuration(value);
  } catch {
    // Falls through to the refusal.
  }
  throw invalidField("lifetime", 'expected a time such as "12h" or "90d"');
}

/** The object of a JSON text; one without fields for everything else. */
function objectOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

/**
 * The fields by their names in small letters: the older server took names in any case.
 * @throws DomainError for two that are one name then
 */
function anyCase(fields: Readonly<Record<string, unknown>>, inside: string): Record<string, unknown> {
  const found = Object.entries(fields).map(([name, value]) => [name.toLowerCase(), value] as const);
  const names = found.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw invalidField(`${inside}${twice}`, "expected this field once");
  return Object.fromEntries(found);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What a session is narrowed to. A scope that cannot be read must not become one without bounds. */
function scopeOf(value: unknown): ObjectGrant[] {
  if (value === undefined || value === null) return [];
  if (!isObject(value)) throw invalidField("operationsScope", "expected an object with a list of elements");
  const { elements: given, ...unknown } = anyCase(value, "operationsScope.");
  const elements = given ?? [];
  for (const name of Object.keys(unknown))
    throw invalidField(`operationsScope.${name}`, "expected nothing beside elements");
  if (!Array.isArray(elements)) throw invalidField("operationsScope", "expected an object with a list of elements");
  if (elements.length > MAX_SCOPE_ELEMENTS)
    throw invalidField("operationsScope", `expected at most ${MAX_SCOPE_ELEMENTS} elements, got ${elements.length}`);
  return elements.map((element: unknown, i) => {
    const field = `operationsScope.elements[${i}]`;
    const { type, name, roles } = isObject(element) ? anyCase(element, `${field}.`) : {};
    if (type !== "collection" || typeof name !== "string")
      throw invalidField(field, 'expected {"type": "collection", "name": ..., "roles": [...]}');
    textOf(`${field}.name`, name, MAX_NAME_LENGTH);
    if (!Array.isArray(roles) || roles.length > MAX_SCOPE_ROLES || !roles.every(isRole))
      throw invalidField(`${field}.roles`, `expected some of ${ROLES.join(", ")}`);
    return { type: "collection", name, roles: [...new Set(roles as Role[])] };
  });
}

const isRole = (role: unknown): role is Role => (ROLES as readonly unknown[]).includes(role);
