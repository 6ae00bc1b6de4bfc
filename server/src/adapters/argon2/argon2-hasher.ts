import { randomBytes } from "node:crypto";
import argon2 from "argon2";
import type { HashWork, PasswordHasher } from "../../app/ports/passwords.ts";
import { DomainError } from "../../domain/errors.ts";
import { costOf, USUAL_COST } from "../../domain/password-cost.ts";

/** Parameters of new hashes: 64 MiB, one pass, four lanes. */
const PARAMETERS = { type: argon2.argon2id, memoryCost: 65_536, timeCost: 1, parallelism: 4 } as const;

/** A salt and digest that no password has, to be checked where there is no hash. */
const DECOY = `${unpadded(16)}$${unpadded(32)}`;

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
  readonly #compute: (hash: string, password: string) => Promise<boolean>;
  readonly #queue: (() => void)[] = [];
  #running = 0;

  /** @param compute replaces the computation of one hash; for tests that count. */
  constructor(limits: HasherLimits = { running: 2, waiting: 64 }, compute = argon2.verify) {
    this.#limits = limits;
    this.#compute = async (hash, password) => await compute(hash, password);
  }

  async verify(hash: string | undefined, password: string, work: HashWork = {}): Promise<boolean> {
    const own = hash === undefined ? undefined : costOf(hash);
    const costs = new Set(work.costs ?? [own ?? USUAL_COST]);
    if (own !== undefined) costs.add(own);
    return await this.#bounded(async () => {
      let right = false;
      for (const cost of costs) {
        const isOwn = hash !== undefined && cost === own;
        const matches = await this.#compute(isOwn ? hash : `${cost}$${DECOY}`, password);
        right ||= isOwn && matches;
      }
      return right;
    }, work.signal);
  }

  async hash(password: string): Promise<string> {
    return await this.#bounded(async () => await argon2.hash(password, PARAMETERS));
  }

  async #bounded<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#running >= this.#limits.running) {
      if (this.#queue.length >= this.#limits.waiting) {
        throw new DomainError("LOGIN_BUSY", "too many logins at this moment; try again in a few seconds", {
          retryAfterMs: 3000,
        });
      }
      await this.#turn(signal);
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

  /** Waits for a place. A caller that has gone leaves the queue: abandoned logins are not hashed. */
  async #turn(signal: AbortSignal | undefined): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const enter = () => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.#queue.splice(this.#queue.indexOf(enter), 1);
        reject(signal?.reason);
      };
      this.#queue.push(enter);
      signal?.addEventListener("abort", leave, { once: true });
    });
  }
}
