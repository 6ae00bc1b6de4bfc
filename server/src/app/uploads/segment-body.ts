import { createHash } from "node:crypto";
import type { FramingMachine } from "@strongroom/framing";
import { DomainError } from "../../domain/errors.ts";
import { bytesEqual } from "../../domain/segments.ts";

/** What {@link checkedSegmentBody} needs. */
export interface SegmentBodyOptions {
  readonly body: AsyncIterable<Uint8Array>;
  readonly segment: { readonly index: number; readonly size: bigint; readonly sha256: Uint8Array };
  /** In the state the segment starts in; afterwards in the one it ends in. */
  readonly framing: FramingMachine;
  /** Whether to hash here, because the store does not verify. */
  readonly hashes: boolean;
  readonly maxChunkSize: number;
  /** Give up when nothing comes for this long, in milliseconds. */
  readonly idleMs: number;
  /** Call `renew` when this long has passed since the last time, in milliseconds. */
  readonly renewMs: number;
  readonly renew: () => Promise<unknown>;
  /** Waits until so many bytes more may go on; nothing waits when left out. */
  readonly pace?: ((bytes: number) => Promise<void>) | undefined;
  readonly signal: AbortSignal;
  /** Called with what the iteration throws: a store may wrap or lose it. */
  readonly onFailure: (error: unknown) => void;
}

/** The bytes stopped coming: the client's connection is gone. */
export class BodyBrokenError extends Error {
  override name = "BodyBrokenError";
}

/**
 * Passes a segment's bytes on, each exactly once through meter, framing check and digest. The last chunk is held back
 * until size, framing and digest are right, so that the reader (a store) never gets a complete wrong segment: instead
 * the iteration throws.
 * @throws DomainError SEGMENT_SIZE_MISMATCH, SEGMENT_DIGEST_MISMATCH, SEGMENT_FRAMES_INVALID, SEGMENT_IDLE;
 *   FramingError; BodyBrokenError; what `signal` was aborted with.
 */
export async function* checkedSegmentBody(options: SegmentBodyOptions): AsyncGenerator<Uint8Array> {
  const { segment, framing } = options;
  const hash = options.hashes ? createHash("sha256") : undefined;
  const iterator = options.body[Symbol.asyncIterator]();
  const idle = idleWatch(options);
  let received = 0n;
  let held: Uint8Array | undefined;
  let renewedAt = performance.now();
  try {
    for (;;) {
      const next = await idle.wait(iterator.next());
      if (next.done === true) break;
      const chunk = next.value;
      if (chunk.length === 0 || chunk.length > options.maxChunkSize)
        throw chunkSizeInvalid(chunk.length, options.maxChunkSize);
      received += BigInt(chunk.length);
      if (received > segment.size) throw sizeMismatch(segment, received, "more");
      framing.push(chunk);
      hash?.update(chunk);
      if (held !== undefined) yield held;
      held = chunk;
      if (options.pace !== undefined) await options.pace(chunk.length);
      if (performance.now() - renewedAt > options.renewMs) {
        await options.renew();
        renewedAt = performance.now();
      }
    }
    if (received < segment.size) throw sizeMismatch(segment, received, "fewer");
    if (hash !== undefined && !bytesEqual(hash.digest(), segment.sha256)) {
      throw digestMismatch(segment.index);
    }
    if (held !== undefined) yield held;
  } catch (error) {
    options.onFailure(error);
    throw error;
  } finally {
    idle.stop();
    // Lets the transport drop what is still on its way. Not awaited: a source that is stuck in next() would never
    // answer.
    void iterator.return?.().catch(() => {});
  }
}

/** The refusal of bytes that are not those announced, whether this server or its store found it. */
export function digestMismatch(index: number, cause?: unknown): DomainError {
  return new DomainError(
    "SEGMENT_DIGEST_MISMATCH",
    `the bytes of segment ${index} do not have the announced SHA-256; they were changed on the way or the ` +
      "header is wrong; send the segment again",
    { metadata: { index: String(index) }, cause },
  );
}

function chunkSizeInvalid(size: number, most: number): DomainError {
  return new DomainError(
    "SEGMENT_FRAMES_INVALID",
    size === 0
      ? "a chunk is empty; send at least one byte in each"
      : `a chunk has ${size} bytes; send at most ${most} in one frame`,
    { metadata: { max_chunk_size_bytes: String(most) } },
  );
}

function sizeMismatch(segment: SegmentBodyOptions["segment"], received: bigint, how: "more" | "fewer"): DomainError {
  return new DomainError(
    "SEGMENT_SIZE_MISMATCH",
    `expected ${segment.size} bytes in segment ${segment.index}, got ${how} (${received} so far); declare ` +
      "exactly what you send",
    { metadata: { declared_bytes: String(segment.size), received_bytes: String(received) } },
  );
}

/** Races reads against silence and the signal, with one timer for all of them. */
function idleWatch({ idleMs, signal }: Pick<SegmentBodyOptions, "idleMs" | "signal">) {
  let fail: (reason: unknown) => void = () => {};
  const onAbort = () => fail(signal.reason);
  const timer = setTimeout(() => {
    fail(
      new DomainError("SEGMENT_IDLE", `nothing was received for ${idleMs / 1000} s; send the segment again`, {
        retryAfterMs: 1000,
      }),
    );
  }, idleMs);
  timer.unref();
  signal.addEventListener("abort", onAbort, { once: true });
  return {
    async wait<T>(next: Promise<T>): Promise<T> {
      // Avoids an unhandled rejection if the wait is abandoned.
      next.catch(() => {});
      signal.throwIfAborted();
      timer.refresh();
      return await new Promise<T>((resolve, reject) => {
        fail = reject;
        next.then(resolve, reject);
      });
    },
    stop() {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    },
  };
}
