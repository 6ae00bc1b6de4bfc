import { randomBytes } from "node:crypto";
import argon2 from "argon2";
import type { PasswordHasher } from "../../app/sessions.ts";
import { DomainError } from "../../domain/errors.ts";

/** Parameters of new hashes: 64 MiB, one pass, four lanes. */
const PARAMETERS = { type: argon2.argon2id, memoryCost: 65_536, timeCost: 1, parallelism: 4 } as const;

/** A hash that no password has, to be checked where there is none: random salt and digest under the usual parameters. */
const DECOY = `$argon2id$v=19$m=${PARAMETERS.memoryCost},t=${PARAMETERS.timeCost},p=${PARAMETERS.parallelism}$${unpadded(16)}$${unpadded(32)}`;

/** How many checks may run and wait; a login flood must not exhaust memory (64 MiB for each running check) nor
 * the four threads of Node's pool, which the directory store needs too. */
export interface HasherLimits {
  readonly running: number;
  readonly waiting: number;
}

function unpadded(bytes: number): string {
  return randomBytes(bytes).toString("base64").replaceAll("=", "");
}

/** Passwords with argon2id (RFC 9106), in bounded number. */
export class Argon2Hasher implements PasswordHasher {
  readonly #limits: HasherLimits;
  readonly #queue: (() => void)[] = [];
  #running = 0;

  constructor(limits: HasherLimits = { running: 2, waiting: 64 }) {
    this.#limits = limits;
  }

  async verify(hash: string | undefined, password: string): Promise<boolean> {
    return await this.#bounded(async () => {
      const matches = await argon2.verify(hash ?? DECOY, password);
      return matches && hash !== undefined;
    });
  }

  async hash(password: string): Promise<string> {
    return await this.#bounded(async () => await argon2.hash(password, PARAMETERS));
  }

  async #bounded<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limits.running) {
      if (this.#queue.length >= this.#limits.waiting) {
        throw new DomainError("LOGIN_BUSY", "too many logins at this moment; try again in a few seconds", {
          retryAfterMs: 3000,
        });
      }
      await new Promise<void>((resolve) => this.#queue.push(resolve));
    } else {
      this.#running++;
    }
    try {
      return await work();
    } finally {
      // The place is handed on rather than freed, so that nobody overtakes the queue.
      const next = this.#queue.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
