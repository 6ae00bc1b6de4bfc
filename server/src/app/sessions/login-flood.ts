/** So many logins that failed or were refused make a flood, where they come within {@link FLOOD_MS}. */
const FLOOD_LOGINS = 100;

/** In milliseconds. */
const FLOOD_MS = 5 * 60_000;

/** Whether so many logins fail, over all addresses, that somebody should look. Each server counts for itself. */
export class LoginFlood {
  readonly #clock: () => number;
  /** When the last ones failed, the oldest first. */
  readonly #times: number[] = [];

  /** @param clock milliseconds that only go forward. */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** A login began, which counts as failed until it is known to be none, or was refused. */
  count(): void {
    this.#times.push(this.#clock());
    if (this.#times.length > FLOOD_LOGINS) this.#times.shift();
  }

  /** One of those that were counted was no failure. */
  forgive(): void {
    this.#times.pop();
  }

  /** What is to be said while there is a flood; undefined while there is none. */
  get message(): string | undefined {
    const [oldest] = this.#times;
    if (this.#times.length < FLOOD_LOGINS || oldest === undefined || this.#clock() - oldest > FLOOD_MS)
      return undefined;
    return `${FLOOD_LOGINS} logins or more failed or were refused within ${FLOOD_MS / 60_000} minutes`;
  }
}
