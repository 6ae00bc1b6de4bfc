import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import type { SessionDeps } from "./sessions.ts";

/**
 * Makes a key that signs tokens from now on. Tokens of the keys before it stay valid; each key goes when no valid
 * session was signed with it.
 * @returns the id of the new key.
 * @throws DomainError ACCESS_DENIED without systemAdmin, KEY_ROTATION_REFUSED
 */
export async function rotateSigningKey(
  { database, tokens, log }: Pick<SessionDeps, "database" | "tokens" | "log">,
  principal: Principal,
): Promise<string> {
  if (!hasSystemRole(principal, "systemAdmin"))
    throw new DomainError("ACCESS_DENIED", "only systemAdmin may make another signing key", {
      metadata: { action: "rotate-signing-key" },
    });
  if (tokens.rotate === undefined) throw new DomainError("KEY_ROTATION_REFUSED", "this server has no key set");
  const keyId = await tokens.rotate();
  await database.transaction(
    async (tx) =>
      await tx.audit({
        kind: "signing-key.rotated",
        actor: principal,
        collectionName: "",
        details: { key_id: keyId },
      }),
  );
  log.info({ user: principal.user.name, key_id: keyId }, "another key signs tokens from now on");
  return keyId;
}
