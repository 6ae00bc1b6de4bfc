import { hasSystemRole, type Principal } from "../../domain/access.ts";
import type { User } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import { credentialName } from "./credential.ts";

/**
 * The user of a name, for itself and for userManager. For everybody else there is one answer, whether or not there is
 * such a user.
 * @param name `user` or `user$key`, which means the key's user.
 * @throws DomainError ACCESS_DENIED, USER_NOT_FOUND
 */
export function findUser(deps: { readonly config: ConfigSource }, principal: Principal, name: string): User {
  const { userName } = credentialName(name);
  if (userName !== principal.user.name && !hasSystemRole(principal, "userManager"))
    throw new DomainError("ACCESS_DENIED", "no permissions to view that user account", {
      metadata: { action: "view-user" },
    });
  const user = deps.config.current().users.get(userName);
  if (user === undefined)
    throw new DomainError("USER_NOT_FOUND", `there is no user "${userName}"; check the name`, {
      metadata: { user: userName },
    });
  return user;
}
