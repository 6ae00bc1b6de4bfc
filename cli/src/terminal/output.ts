import { jsonLine } from "@strongroom/command-line/json";
import type { Screen } from "../context.ts";

/** What a person or a program reads: results on standard output, everything else on standard error. */
export class Output {
  readonly isJson: boolean;
  readonly isQuiet: boolean;
  readonly stderr: Screen;
  readonly #stdout: Screen;
  #stdoutIsData = false;

  constructor(stdout: Screen, stderr: Screen, options: { json: boolean; quiet: boolean }) {
    this.#stdout = stdout;
    this.stderr = stderr;
    this.isJson = options.json;
    this.isQuiet = options.quiet;
  }

  /** Standard output now carries a dump; reports go to standard error from here on. */
  reserveStdout(): void {
    this.#stdoutIsData = true;
  }

  /** A result for a person. */
  line(text: string): void {
    this.#reports.write(`${text}\n`);
  }

  /** A result for a program: one line of JSON. */
  json(value: unknown): void {
    this.#reports.write(jsonLine(value));
  }

  /** A remark on standard error; not with `--quiet`. */
  note(text: string): void {
    if (!this.isQuiet) this.stderr.write(`${text}\n`);
  }

  /** A remark that somebody has to look at: with `--quiet` too, so that cron sends it. */
  warn(text: string): void {
    this.stderr.write(`${text}\n`);
  }

  get #reports(): Screen {
    return this.#stdoutIsData ? this.stderr : this.#stdout;
  }
}
