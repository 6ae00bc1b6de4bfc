import { createHash, timingSafeEqual } from "node:crypto";
import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import { MAX_TOKEN_LENGTH } from "@strongroom/protocol/limits";
import { type AuthenticationDeps, authenticate } from "../app/sessions/sessions.ts";
import type { Principal } from "../domain/access.ts";
import { DomainError } from "../domain/errors.ts";
import { authenticationRequired } from "./call.ts";
import type { Route } from "./routes.ts";

/** What a caller shows before its body. */
export interface Credentials {
  /** Reads a header by its name in small letters. */
  header(name: string): string | undefined;
  /** What is after the `?` of the address. */
  readonly query: string;
}

/** What {@link authenticateCall} needs. */
export interface CallAuthenticationDeps extends AuthenticationDeps {
  /** SHA-256 of the monitoring secret in hexadecimal; undefined when there is none. */
  readonly monitoringSecretSha256?: string | undefined;
}

/** A header longer than this is no secret of ours. */
const MAX_SECRET_LENGTH = 1024;

/**
 * Finds out from the headers who calls, as far as the route asks for it.
 * @returns undefined for a route that needs nobody, for monitoring, and for a health secret, which the use case decides
 *   on.
 * @throws DomainError AUTHENTICATION_REQUIRED, SESSION_INVALID
 */
export async function authenticateCall(
  deps: CallAuthenticationDeps,
  { who }: Pick<Route, "who">,
  address: string,
  given: Credentials,
): Promise<Principal | undefined> {
  if (who === "anonymous") return undefined;
  if (who === "monitoring") {
    const { monitoringSecretSha256: expected } = deps;
    if (expected !== undefined && !hasMonitoringSecret(expected, given)) throw monitoringSecretRequired();
    return undefined;
  }
  // Proxies add an Authorization of their own.
  if (who === "session or bare secret" && new URLSearchParams(given.query).has("code")) return undefined;
  const token = /^Bearer (\S+)$/i.exec(given.header("authorization") ?? "")?.[1];
  if (token !== undefined && token.length <= MAX_TOKEN_LENGTH) return await authenticate(deps, token, address);
  // Whether the secret is right is the use case's to say, also whether there is one.
  if (who === "session or bare secret") return undefined;
  if (who === "session" || given.header(HEALTH_SECRET_HEADER) === undefined) throw authenticationRequired();
  return undefined;
}

/** The health secret as the HTTP API takes it: `?code=`, else all of `Authorization`; undefined for none. */
export function bareSecret({ header, query }: Credentials): string | undefined {
  const code = new URLSearchParams(query).get("code") ?? "";
  const secret = code === "" ? (header("authorization") ?? "") : code;
  return secret === "" || secret.length > MAX_SECRET_LENGTH ? undefined : secret;
}

/** Whether the secret was sent, as `Authorization` (alone or after `Bearer`) or as `?code=`. */
function hasMonitoringSecret(expectedSha256: string, { header, query }: Credentials): boolean {
  const authorization = (header("authorization") ?? "").replace(/^Bearer /i, "");
  const code = new URLSearchParams(query).get("code") ?? "";
  const expected = Buffer.from(expectedSha256, "hex");
  // Either may be right: proxies add an Authorization of their own.
  return [authorization, code].some(
    (secret) =>
      secret !== "" &&
      secret.length <= MAX_SECRET_LENGTH &&
      timingSafeEqual(createHash("sha256").update(secret).digest(), expected),
  );
}

function monitoringSecretRequired(): DomainError {
  const hint = "send the monitoring secret in the header Authorization, or as ?code=";
  return new DomainError("AUTHENTICATION_REQUIRED", hint);
}
