/**
 * Passes a body on and breaks off at once when the signal aborts, also while the body is silent. However the iteration
 * ends, the body is closed.
 * @throws the body's own errors and the signal's reason unchanged.
 */
export async function* abortable(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  signal.throwIfAborted();
  const source = body[Symbol.asyncIterator]();
  // Whether the source is through, by its end or its own error, and so needs no closing.
  let through = false;
  try {
    for (;;) {
      let step: IteratorResult<Uint8Array>;
      try {
        step = await nextUnlessAborted(source, signal);
      } catch (error) {
        through = !signal.aborted;
        throw error;
      }
      if (step.done === true) {
        through = true;
        return;
      }
      yield step.value;
    }
  } finally {
    if (!through) await closeQuietly(source, signal);
  }
}

function nextUnlessAborted(
  source: AsyncIterator<Uint8Array>,
  signal: AbortSignal,
): Promise<IteratorResult<Uint8Array>> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const onAbort = () => reject(signal.reason);
    // A listener for each step, not one promise for the whole body: racing against a long-lived promise would collect
    // one reaction per chunk.
    signal.addEventListener("abort", onAbort, { once: true });
    const settled = () => signal.removeEventListener("abort", onAbort);
    try {
      source.next().then(resolve, reject).finally(settled);
    } catch (error) {
      settled();
      reject(error);
    }
  });
}

/** Lets the source free what it holds. Its errors here would hide the one that is on its way to the caller. */
async function closeQuietly(source: AsyncIterator<Uint8Array>, signal: AbortSignal): Promise<void> {
  try {
    const closing = source.return?.();
    // After an abort the source may be stuck in its own await and close only after it, if ever: that must not delay the
    // caller.
    if (signal.aborted) closing?.catch(() => {});
    else await closing;
  } catch {}
}
