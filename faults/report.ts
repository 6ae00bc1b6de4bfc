/** Counts what passed and failed, and says what happened. */
export class Report {
  passed = 0;
  failed = 0;

  /** Writes a line. */
  say(line: string): void {
    process.stdout.write(`${line}\n`);
  }

  /** Counts one scenario or check. */
  count(good: boolean): void {
    if (good) this.passed++;
    else this.failed++;
  }

  /** Counts a check and says it when it fails. */
  check(good: boolean, what: string): void {
    this.count(good);
    if (!good) this.say(`FAILED: ${what}`);
  }

  /** Counts a failure and says it. */
  fail(what: string): void {
    this.check(false, what);
  }
}
