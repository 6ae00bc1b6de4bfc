import { budgetHolder } from "../domain/rate-limit.ts";

/** Most bytes of bodies of callers who are not known, in the whole process. */
export const MAX_HELD_BYTES = 256 * 1024 * 1024;

/** The part of it that one holder (an IPv4 address, or the /64 of an IPv6 address) can have. */
export const HOLDER_PART = 8;

/**
 * The part that anonymous bodies cannot have, which may stay unfinished for seconds: kept for calls with a session to
 * show, which is known at once.
 */
const KEPT_PART = 4;

/**
 * What one call can have unread in the buffers of a connection on which nobody was authenticated: the first
 * flow-control window of HTTP/2 (RFC 9113, 6.9.2).
 */
export const UNREAD_BYTES = 64 * 1024;

/**
 * A bound on the bytes that unknown callers make the process hold. It counts what a body can come to, not what was
 * received: Node.js takes bytes off a connection whether or not they are read them, so what was received is known too
 * late.
 */
export class HeldBytes {
  readonly #most: number;
  readonly #byHolder = new Map<string, number>();
  #total = 0;

  constructor(most: number = MAX_HELD_BYTES) {
    this.#most = most;
  }

  /** Bytes held at this moment. */
  get total(): number {
    return this.#total;
  }

  /**
   * Holds bytes of a call for the address' holder. @returns what releases them, once; undefined when they are too many.
   */
  hold(address: string, bytes: number, isAnonymous: boolean): (() => void) | undefined {
    const holder = budgetHolder(address);
    const held = (this.#byHolder.get(holder) ?? 0) + bytes;
    const most = isAnonymous ? this.#most - this.#most / KEPT_PART : this.#most;
    if (held > this.#most / HOLDER_PART || this.#total + bytes > most) return undefined;
    this.#byHolder.set(holder, held);
    this.#total += bytes;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#total -= bytes;
      const left = this.#byHolder.get(holder)! - bytes;
      if (left > 0) this.#byHolder.set(holder, left);
      else this.#byHolder.delete(holder);
    };
  }
}
