import { type ContextValues, createContextKey } from "@connectrpc/connect";
import type { Principal } from "../domain/access.ts";
import { DomainError } from "../domain/errors.ts";

/** Who calls; undefined for methods that need nobody. Set by the authentication interceptor only. */
export const PRINCIPAL = createContextKey<Principal | undefined>(undefined, { description: "principal" });

/** Network address of the caller. */
export const ADDRESS = createContextKey<string>("", { description: "address" });

/** Name of the call in logs and errors. */
export const REQUEST_ID = createContextKey<string>("", { description: "request id" });

/** The caller of a method that needs one. */
export function callerOf(values: ContextValues): Principal {
  const principal = values.get(PRINCIPAL);
  // Unreachable behind the interceptor; here so that a mistake there denies.
  if (principal === undefined) throw authenticationRequired();
  return principal;
}

/** The call carries no token. */
export function authenticationRequired(): DomainError {
  return new DomainError(
    "AUTHENTICATION_REQUIRED",
    "send a session token as `Authorization: Bearer <token>`; SessionService.Login gives one",
  );
}
