import { durationMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import type { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { MAX_DESCRIPTION_LENGTH, MAX_LOGIN_NAME_LENGTH, PAGE } from "@strongroom/protocol/limits";
import { listSessions, revokeSession, revokeSessions, whoAmI } from "../app/sessions/manage-sessions.ts";
import { rotateSigningKey } from "../app/sessions/rotate-key.ts";
import { login, refreshSession, type SessionDeps } from "../app/sessions/sessions.ts";
import { invalidField } from "../domain/errors.ts";
import { addressOf, callerOf, callOf } from "./connect-calls.ts";
import { rightsMessage, roleMessages, sessionMessage } from "./messages.ts";
import { pagePosition, pageSizeOf, pageToken, scopeOf, textOf } from "./shapes.ts";

/** A longer password is refused before it is hashed, in characters. */
export const MAX_PASSWORD_LENGTH = 1024;

/** SessionService of the contract. */
export function sessionService(deps: SessionDeps): ServiceImpl<typeof SessionService> {
  return {
    async login(req, context) {
      if (req.username === "")
        throw invalidField("username", "expected the name of a user, or user$key for an access key");
      if (req.password.length > MAX_PASSWORD_LENGTH)
        throw invalidField("password", `expected at most ${MAX_PASSWORD_LENGTH} characters`);
      const issued = await login(deps, {
        username: textOf("username", req.username, MAX_LOGIN_NAME_LENGTH),
        password: req.password,
        description: textOf("description", req.description, MAX_DESCRIPTION_LENGTH),
        scope: scopeOf(req.scope),
        lifetimeMs: req.lifetime === undefined ? undefined : durationMs(req.lifetime),
        address: addressOf(context.values),
        requestId: callOf(context.values).requestId,
        signal: context.signal,
      });
      return { token: issued.token, session: sessionMessage(issued.session) };
    },

    async refreshSession(_req, context) {
      const issued = await refreshSession(deps, callerOf(context.values), addressOf(context.values));
      return { token: issued.token, session: sessionMessage(issued.session) };
    },

    async whoAmI(_req, context) {
      const principal = callerOf(context.values);
      const { session, rights } = await whoAmI(deps, principal);
      return {
        session: sessionMessage(session),
        email: principal.user.email,
        roles: roleMessages(principal.user.roles),
        rights: rights.map(rightsMessage),
      };
    },

    async listSessions(req, context) {
      const position = pagePosition("sessions", req.pageToken, /^\d{1,14}\/[0-9a-f]{64}$/);
      const [millis, id] = position?.split("/") ?? [];
      if (req.allUsers && req.user !== "") throw invalidField("all_users", "expected no user beside it; leave one out");
      const { sessions, next } = await listSessions(deps, callerOf(context.values), {
        user: textOf("user", req.user, MAX_LOGIN_NAME_LENGTH),
        allUsers: req.allUsers,
        after: id === undefined ? undefined : { createdAt: new Date(Number(millis)), id },
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      const at = next === undefined ? undefined : `${next.createdAt.getTime()}/${next.id}`;
      return { sessions: sessions.map(sessionMessage), nextPageToken: pageToken("sessions", at) };
    },

    async revokeSession(req, context) {
      if (req.sessionId !== "" && !/^[0-9a-f]{64}$/.test(req.sessionId)) {
        throw invalidField(
          "session_id",
          "expected a session id of 64 hexadecimal digits, or nothing for the session of this call",
        );
      }
      return { sessionId: await revokeSession(deps, callerOf(context.values), req.sessionId) };
    },

    async revokeSessions(req, context) {
      const user = textOf("user", req.user, MAX_LOGIN_NAME_LENGTH);
      return { sessionCount: await revokeSessions(deps, callerOf(context.values), user) };
    },

    async rotateSigningKey(_req, context) {
      return { keyId: await rotateSigningKey(deps, callerOf(context.values)) };
    },
  };
}
