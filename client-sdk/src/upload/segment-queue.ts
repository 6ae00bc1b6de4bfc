/**
 * The segments between cutting and acknowledgement: a few under way, the others waiting in memory or in the temporary
 * file.
 */
import type { PreparedSegment, SegmentBuffers } from "./segments.ts";
import type { Spool } from "./spool.ts";

/** What a queue writes with, and where it reports. */
export interface SegmentQueueOptions {
  /** The most segments under way at once. */
  parallel: number;
  /** Where the segments' memory comes from. */
  buffers: SegmentBuffers;
  /** Where they go when no memory is left; undefined: the source waits. */
  spool: Spool | undefined;
  /** Sends one until it is acknowledged. */
  deliver: (segment: PreparedSegment) => Promise<void>;
  /** Called with the first failure; nothing is begun after it. */
  fail: (error: unknown) => void;
}

/**
 * Sends segments in order, several at once, and keeps each until it is acknowledged. When the last free buffer is taken
 * by a segment that cannot be sent yet, that segment goes to the file, so that the source never waits while the file
 * has room.
 */
export class SegmentQueue {
  readonly #options: SegmentQueueOptions;
  readonly #waiting: PreparedSegment[] = [];
  readonly #sends = new Set<Promise<void>>();
  /** Segments under way that are sent from memory. */
  #inMemory = 0;
  #spooled = 0;
  #failed = false;

  constructor(options: SegmentQueueOptions) {
    this.#options = options;
  }

  /** Bytes that are in the file. */
  get spooledBytes(): number {
    return this.#spooled;
  }

  /**
   * Takes the next segment, and returns when the one after it may be cut.
   * @throws SpoolError when the file takes no more
   */
  async add(segment: PreparedSegment): Promise<void> {
    const { buffers, spool } = this.#options;
    this.#waiting.push(segment);
    this.#begin();
    if (spool === undefined || !spool.hasRoom || buffers.available > 0) return;
    if (this.#waiting.at(-1) !== segment) return;
    // Out of the queue while it moves: it must not be sent half from here and half from there.
    this.#waiting.pop();
    try {
      await segment.moveTo(spool);
      this.#spooled += segment.size;
    } finally {
      this.#waiting.push(segment);
    }
    this.#begin();
  }

  /** Waits until every segment was acknowledged, or one failed. */
  async finish(): Promise<void> {
    while (!this.#failed && this.#sends.size > 0) await Promise.race(this.#sends);
  }

  /** Waits for the segments under way, and gives up the others. */
  async close(): Promise<void> {
    this.#failed = true;
    await Promise.all(this.#sends);
    for (const segment of this.#waiting.splice(0)) segment.release();
  }

  #begin(): void {
    const { parallel, buffers } = this.#options;
    while (!this.#failed && this.#sends.size < parallel) {
      const segment = this.#waiting[0];
      if (segment === undefined) return;
      // One buffer stays for the segment being cut, even if that means fewer under way.
      if (!segment.spooled && this.#inMemory > 0 && this.#inMemory >= buffers.count - 1) return;
      this.#waiting.shift();
      this.#send(segment);
    }
  }

  #send(segment: PreparedSegment): void {
    const { spooled } = segment;
    if (!spooled) this.#inMemory += 1;
    const send = this.#options
      .deliver(segment)
      .catch((error: unknown) => {
        this.#failed = true;
        this.#options.fail(error);
      })
      .finally(() => {
        if (spooled) this.#spooled -= segment.size;
        else this.#inMemory -= 1;
        segment.release();
        this.#sends.delete(send);
        this.#begin();
      });
    this.#sends.add(send);
  }
}
