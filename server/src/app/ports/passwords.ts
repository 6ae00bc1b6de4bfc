import type { HashCost } from "../../domain/password-cost.ts";

/** Checks passwords. */
export interface PasswordHasher {
  /**
   * Whether the password has this hash. The work does not depend on it: one hash is computed for each of `costs`, also
   * where there is no hash, or none that can be read, which no password has.
   * @param work.costs by default that of the hash, or the usual one.
   * @param work.signal gives up a check that waits for its turn; its reason is thrown.
   * @throws DomainError LOGIN_BUSY when too many checks are waiting.
   */
  verify(hash: string | undefined, password: string, work?: HashWork): Promise<boolean>;
  /** Makes a PHC-encoded argon2id hash. */
  hash(password: string): Promise<string>;
}

/** How much is computed for one login, and for whom. */
export interface HashWork {
  readonly costs?: readonly HashCost[];
  readonly signal?: AbortSignal;
}
