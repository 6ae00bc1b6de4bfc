import { DomainError } from "../../domain/errors.ts";
import type { BufferPool } from "./buffer-pool.ts";

/**
 * What a body must come with while others wait for the memory that its segment is collected in: bytes a second, over at
 * least so many milliseconds.
 */
export const LEAST_RATE = 32 * 1024;
export const LEAST_RATE_OVER_MS = 30_000;

/**
 * The chunks that follow, as long as they come fast enough while others wait for the buffer that they are collected in.
 * @param first what was read before.
 * @throws DomainError SEGMENT_IDLE
 */
export function inPace(
  pool: Pick<BufferPool, "now" | "pressedSince">,
  owner: string,
  first: Uint8Array,
  chunks: AsyncIterator<Uint8Array>,
): AsyncIterator<Uint8Array> {
  let since = pool.now;
  let bytes = first.length;
  let isPressed = false;
  let lookedAt = pool.now;
  return {
    async next() {
      const next = await chunks.next();
      const pressed = pool.pressedSince(owner);
      // From when nobody had counted yet: who waits may have waited long before this buffer would have helped.
      if (pressed !== undefined && !isPressed) [since, bytes] = [Math.max(lookedAt, pressed), 0];
      isPressed = pressed !== undefined;
      lookedAt = pool.now;
      bytes += next.value?.length ?? 0;
      const ms = pool.now - since;
      if (!isPressed || next.done === true || ms < LEAST_RATE_OVER_MS || bytes * 1000 >= LEAST_RATE * ms) return next;
      throw new DomainError(
        "SEGMENT_IDLE",
        `the body comes with ${Math.round((bytes * 1000) / ms)} bytes a second, and others wait for the memory that it ` +
          `takes; while they do, at least ${LEAST_RATE} are expected. Send it again later, or over a faster line`,
      );
    },
  };
}
