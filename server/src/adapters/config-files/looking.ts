import type { DirectoryJudge, Judgement } from "./directory.ts";
import { DirectoryNotices } from "./notices.ts";

/** How soon after a notice the directory is looked at, in milliseconds: one change gives several notices. */
const NOTICE_MS = 50;
/** The same at most, however much a look takes: a change of rights is to be in force within a second. */
const MAX_NOTICE_MS = 300;
/** Time between two polls at most, in milliseconds, unless `pollMs` is longer. */
const MAX_POLL_MS = 30_000;

/**
 * Looks at a directory soon after the file system reports a change, and at least every `pollMs` milliseconds, since
 * network file systems report nothing.
 *
 * Thousands of files take seconds of a processor: looking then takes a twentieth of its time, and a fifth while they
 * are being changed. What counts is the time that the processor gave to it, never the time that passed: on a machine
 * that is busy with something else that was twenty times as long as it should be.
 */
export class Looking {
  readonly #judge: DirectoryJudge;
  readonly #pollMs: number;
  readonly #onJudgement: (judgement: Judgement) => void;
  readonly #notices: DirectoryNotices;
  #running: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;
  #isLooking = false;
  #isNoticed = false;
  #usedMs = 0;

  /** @param onJudgement is called after each look that nobody asked for. */
  constructor(judge: DirectoryJudge, pollMs: number, onJudgement: (judgement: Judgement) => void) {
    this.#judge = judge;
    this.#pollMs = pollMs;
    this.#onJudgement = onJudgement;
    this.#notices = new DirectoryNotices(() => {
      if (!this.#isNoticed && !this.#isLooking) this.#lookIn(this.#afterNotice());
      this.#isNoticed = true;
    });
  }

  /** Looks at once, since something may have changed before the notices began, and from then on. */
  start(): void {
    this.#notices.follow(this.#judge.known.directories);
    void this.#look();
  }

  /** Looks now, after a look that is under way. */
  async look(force: boolean): Promise<Judgement> {
    const look = this.#running.then(async () => await this.#judge.look(force));
    this.#running = look;
    const judgement = await look;
    if (judgement.kind !== "unchanged") this.#notices.follow(this.#judge.known.directories);
    return judgement;
  }

  /** No further looks. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#notices.close();
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#timer);
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.#look(), ms);
  }

  async #look(): Promise<void> {
    const wasNoticed = this.#isNoticed;
    this.#isNoticed = false;
    this.#isLooking = true;
    const before = process.threadCpuUsage();
    const judgement = await this.look(false);
    const { user, system } = process.threadCpuUsage(before);
    this.#isLooking = false;
    if (judgement.kind === "unchanged") this.#usedMs = (user + system) / 1000;
    // A directory that was replaced under the same name needs a new watch.
    if (wasNoticed) this.#notices.follow(this.#judge.known.directories);
    this.#lookIn(
      this.#isNoticed ? this.#afterNotice() : Math.max(this.#pollMs, Math.min(20 * this.#usedMs, MAX_POLL_MS)),
    );
    this.#onJudgement(judgement);
  }

  #afterNotice(): number {
    return Math.min(Math.max(NOTICE_MS, 4 * this.#usedMs), MAX_NOTICE_MS);
  }
}
