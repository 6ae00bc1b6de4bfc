import { MAX_FRAMING_STATE_BYTES } from "@strongroom/protocol/limits";
import { FramingStateError } from "./errors.ts";

/** First byte of every encoded state; changes with every change of the layout. */
export const STATE_VERSION = 1;

/**
 * Writes the fields of a state, one after the other, without names: the reader knows the order from the fields before.
 */
export class StateWriter {
  readonly #bytes: number[] = [STATE_VERSION];

  /** An integer from 0 to 255. */
  byte(value: number): this {
    this.#bytes.push(value);
    return this;
  }

  /** A flag, as the byte 0 or 1. */
  flag(value: boolean): this {
    return this.byte(value ? 1 : 0);
  }

  /** An integer from 0 to 2^53 - 1, as LEB128 in its shortest form. Division, since shifts end at 32 bits. */
  uint(value: number): this {
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes.push((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    return this.byte(rest);
  }

  /** Bytes of a length that the reader knows. */
  bytes(value: Uint8Array): this {
    for (const byte of value) this.#bytes.push(byte);
    return this;
  }

  /** The encoded state, version byte first. */
  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}

/** Reads what {@link StateWriter} wrote. The input is untrusted, so every read names its greatest value. */
export class StateReader {
  readonly #bytes: Uint8Array;
  #at = 1;

  /** @throws FramingStateError when empty, too long, or of an unknown version */
  constructor(bytes: Uint8Array) {
    if (bytes.length === 0) throw new FramingStateError("it is empty");
    if (bytes.length > MAX_FRAMING_STATE_BYTES) {
      throw new FramingStateError(`it has ${bytes.length} bytes, and at most ${MAX_FRAMING_STATE_BYTES} are allowed`);
    }
    if (bytes[0] !== STATE_VERSION) {
      throw new FramingStateError(`its version is ${bytes[0]}, and only version ${STATE_VERSION} is known`);
    }
    this.#bytes = bytes;
  }

  /** @throws FramingStateError at the end, or above `max` */
  byte(max: number): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw new FramingStateError("it ends early");
    if (value > max) throw impossible();
    this.#at += 1;
    return value;
  }

  /** @throws FramingStateError for anything but 0 and 1 */
  flag(): boolean {
    return this.byte(1) === 1;
  }

  /** @throws FramingStateError at the end, above `max`, or when not in shortest form */
  uint(max: number): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.byte(0xff);
      value += (byte & 0x7f) * scale;
      // Checked before the next scale, so neither value nor scale ever leaves the range in which numbers are exact.
      if (value > max) throw impossible();
      if (byte < 0x80) {
        if (byte === 0 && scale > 1) throw new FramingStateError("a number in it is not in its shortest form");
        return value;
      }
      if (scale > Number.MAX_SAFE_INTEGER / 0x80) throw impossible();
    }
  }

  /** @throws FramingStateError when fewer bytes are left */
  bytes(count: number): Uint8Array {
    if (this.#bytes.length - this.#at < count) throw new FramingStateError("it ends early");
    const value = this.#bytes.subarray(this.#at, this.#at + count);
    this.#at += count;
    return value;
  }

  /** @throws FramingStateError when bytes are left */
  end(): void {
    if (this.#at !== this.#bytes.length) throw new FramingStateError("it goes on after its end");
  }
}

/** @throws FramingStateError unless the condition holds; for what no stream can lead to. */
export function requirePossible(condition: boolean): void {
  if (!condition) throw impossible();
}

function impossible(): FramingStateError {
  return new FramingStateError("no stream leads to it");
}
