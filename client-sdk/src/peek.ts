/** Looking at the beginning of a stream without losing it. */

/** The beginning of a stream, and the whole stream. */
export interface Peeked {
  /** The chunks that were read: at least the bytes asked for, or all there are. */
  head: Uint8Array[];
  /** Bytes in `head`. */
  size: number;
  /** Whether the stream ended within `head`. */
  ended: boolean;
  /** The whole stream from its first byte; can be read once. */
  stream: AsyncGenerator<Uint8Array>;
}

/**
 * Reads until there are at least `size` bytes or the stream ended.
 * @throws what the source throws
 */
export async function peek(source: AsyncIterable<Uint8Array>, size: number): Promise<Peeked> {
  const iterator = source[Symbol.asyncIterator]();
  const head: Uint8Array[] = [];
  let length = 0;
  let ended = false;
  while (length < size && !ended) {
    const result = await iterator.next();
    if (result.done === true) ended = true;
    else {
      head.push(result.value);
      length += result.value.length;
    }
  }
  return { head, size: length, ended, stream: replay(head, iterator) };
}

/**
 * Gives the chunks that were read already, then the rest; ending it ends the iterator. The array is emptied, so that
 * the bytes can be freed.
 */
export async function* replay(head: Uint8Array[], rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    for (;;) {
      const chunk = head.shift();
      if (chunk === undefined) break;
      yield chunk;
    }
    for (;;) {
      const result = await rest.next();
      if (result.done === true) return;
      yield result.value;
    }
  } finally {
    await rest.return?.();
  }
}
