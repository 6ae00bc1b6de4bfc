import { DomainError } from "../../domain/errors.ts";

/**
 * What a body must come with while others wait for what its segment takes (memory that it is collected in, a place of
 * its organization): bytes a second, over at least so many milliseconds.
 */
export const LEAST_RATE = 32 * 1024;
export const LEAST_RATE_OVER_MS = 30_000;

/** What is measured by {@link inPace}. */
export interface BodyPressure {
  /** For how long others have waited for what the body takes, in milliseconds; undefined while nobody does. */
  readonly pressedMs: () => number | undefined;
  /** Milliseconds that only go forward. */
  readonly now: () => number;
}

/**
 * The chunks that follow, as long as they come fast enough while others wait for what the body takes. Only the time in
 * which this waits for the body counts: what the server takes to pass a chunk on is no slowness of its client.
 * @param before bytes that were read before.
 * @throws DomainError SEGMENT_IDLE
 */
export function inPace(
  { pressedMs, now }: BodyPressure,
  before: number,
  chunks: AsyncIterator<Uint8Array>,
): AsyncIterator<Uint8Array> {
  let waited = 0;
  let bytes = before;
  let isPressed = false;
  return {
    async next() {
      const from = now();
      const next = await chunks.next();
      const ms = now() - from;
      const pressed = pressedMs();
      if (pressed === undefined || isPressed) waited += ms;
      // From when nobody had counted yet: who waits may have waited long before this body would have helped.
      else [waited, bytes] = [Math.min(ms, pressed), 0];
      isPressed = pressed !== undefined;
      bytes += next.value?.length ?? 0;
      if (!isPressed || next.done === true || waited < LEAST_RATE_OVER_MS || bytes * 1000 >= LEAST_RATE * waited)
        return next;
      throw new DomainError(
        "SEGMENT_IDLE",
        `the body comes with ${Math.round((bytes * 1000) / waited)} bytes a second, and others wait for the memory or ` +
          `the place that it takes; while they do, at least ${LEAST_RATE} are expected. Send it again later, or over a ` +
          "faster line",
        { retryAfterMs: 1000 },
      );
    },
    return: async (value) => (await chunks.return?.(value)) ?? { done: true, value },
  };
}
