/** Time that only goes on when the test says so, or, with `runs`, as soon as somebody sleeps. */
export class ShareTime {
  now = 0;
  readonly slept: number[] = [];
  runs = false;
  #sleepers: { at: number; wake: () => void }[] = [];
  readonly monotonic = () => this.now;
  readonly sleep = async (ms: number, signal: AbortSignal): Promise<void> => {
    signal.throwIfAborted();
    this.slept.push(ms);
    if (this.runs) {
      this.now += ms;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#sleepers.push({ at: this.now + ms, wake: resolve });
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
  };

  advance(ms: number): void {
    this.now += ms;
    const due = this.#sleepers.filter(({ at }) => at <= this.now);
    this.#sleepers = this.#sleepers.filter(({ at }) => at > this.now);
    for (const { wake } of due) wake();
  }
}
