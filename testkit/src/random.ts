import { createHash } from "node:crypto";

/**
 * Numbers that look random and are the same for the same seed (SFC32 by Chris Doty-Humphrey, from PractRand; public
 * domain).
 */
export class Random {
  readonly #state: Uint32Array;

  constructor(seed: string) {
    this.#state = new Uint32Array(4);
    const digest = createHash("sha256").update(seed).digest();
    for (let i = 0; i < 4; i++) this.#state[i] = digest.readUInt32LE(i * 4);
  }

  /** From 0 up to, but without, 1. */
  next(): number {
    const s = this.#state;
    const sum = (s[0]! + s[1]! + s[3]!) >>> 0;
    s[3] = s[3]! + 1;
    s[0] = s[1]! ^ (s[1]! >>> 9);
    s[1] = s[2]! + (s[2]! << 3);
    s[2] = ((s[2]! << 21) | (s[2]! >>> 11)) + sum;
    return sum / 2 ** 32;
  }

  /** A whole number from `least` to `most`. */
  int(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** One of these, which must not be none. */
  pick<T>(items: readonly T[]): T {
    return items[this.int(0, items.length - 1)]!;
  }

  /** One of these, more often those of a higher weight. */
  weighted<T>(items: readonly (readonly [weight: number, item: T])[]): T {
    let at = this.next() * items.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, item] of items) {
      at -= weight;
      if (at < 0) return item;
    }
    return items.at(-1)![1];
  }

  /** The same items in another order. */
  shuffled<T>(items: readonly T[]): T[] {
    const left = [...items];
    return items.map(() => left.splice(this.int(0, left.length - 1), 1)[0]!);
  }

  /** A UUID. */
  uuid(): string {
    const hex = () => this.int(0, 0xffff).toString(16).padStart(4, "0");
    return `${hex()}${hex()}-${hex()}-4${hex().slice(1)}-a${hex().slice(1)}-${hex()}${hex()}${hex()}`;
  }
}
