const FRAME_HEADER_BYTES = 9;
/** DATA, HEADERS and CONTINUATION (RFC 9113, section 6). */
const ANSWER_TYPES = new Set([0, 1, 9]);

/**
 * Follows the frames that a server sends over one HTTP/2 connection, and leaves out those that carry answers when asked
 * to.
 */
export class AnswerFilter {
  /** As much as has arrived of a frame's header. */
  #header = Buffer.alloc(0);
  /** Whether bytes of that header have gone on, so that the rest of the frame has to. */
  #begun = false;
  /** Bytes of the current frame that are still to come. */
  #left = 0;
  #taking = false;

  /** The part of the next bytes that goes on to the client. */
  push(chunk: Buffer, takeAnswers: boolean): Buffer {
    const kept: Buffer[] = [];
    for (let offset = 0; offset < chunk.length; ) {
      if (this.#left > 0) {
        const part = chunk.subarray(offset, offset + this.#left);
        offset += part.length;
        this.#left -= part.length;
        if (!this.#taking) kept.push(part);
        continue;
      }
      const part = chunk.subarray(offset, offset + FRAME_HEADER_BYTES - this.#header.length);
      offset += part.length;
      const held = this.#begun ? part : Buffer.concat([this.#header, part]);
      this.#header = Buffer.concat([this.#header, part]);
      const whole = this.#header.length === FRAME_HEADER_BYTES;
      this.#taking = whole && takeAnswers && !this.#begun && ANSWER_TYPES.has(this.#header[3]!);
      // Held back only as long as it may turn out to be an answer's.
      if (!takeAnswers || this.#begun || (whole && !this.#taking)) {
        kept.push(held);
        this.#begun = true;
      }
      if (!whole) continue;
      this.#left = this.#header.readUIntBE(0, 3);
      this.#header = Buffer.alloc(0);
      this.#begun = false;
    }
    return kept.length === 1 ? kept[0]! : Buffer.concat(kept);
  }
}
