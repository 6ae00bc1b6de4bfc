import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import { MAX_TOKEN_LENGTH } from "@strongroom/protocol/limits";
import { type AuthenticationDeps, authenticate } from "../app/sessions/sessions.ts";
import type { Principal } from "../domain/access.ts";
import { authenticationRequired } from "./call.ts";
import type { Route } from "./routes.ts";

/** Reads a header by its name in small letters. */
export type HeaderReader = (name: string) => string | undefined;

/**
 * Finds out from the headers who calls, as far as the route asks for it.
 * @returns undefined for a route that needs nobody, and for a health secret, which the use case decides on.
 * @throws DomainError AUTHENTICATION_REQUIRED, SESSION_INVALID
 */
export async function authenticateCall(
  deps: AuthenticationDeps,
  { who }: Pick<Route, "who">,
  address: string,
  header: HeaderReader,
): Promise<Principal | undefined> {
  if (who === "anonymous") return undefined;
  const token = /^Bearer (\S+)$/i.exec(header("authorization") ?? "")?.[1];
  if (token !== undefined && token.length <= MAX_TOKEN_LENGTH) return await authenticate(deps, token, address);
  if (who === "session" || header(HEALTH_SECRET_HEADER) === undefined) throw authenticationRequired();
  return undefined;
}
