const REAL_START = Date.UTC(2026, 0, 1);

/** A clock that goes `pace` times as fast as the real one; the same in every process. */
export function quickClock(pace: number): () => Date {
  return () => new Date(REAL_START + (Date.now() - REAL_START) * pace);
}
