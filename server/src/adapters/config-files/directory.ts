import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type ChangePlan, planChange, type WantedChange } from "../../objects/plan-change.ts";
import { type ConfigProblem, Findings, formatProblem } from "../../objects/problem.ts";
import { interpret, type LoadResult, type ObjectFiles } from "../../objects/read-objects.ts";
import { type ConfigDirectory, MAX_FILE_SIZE, MAX_FILES, MAX_TOTAL_SIZE, readConfigFiles } from "./files.ts";

/**
 * A change is taken up when two readings this far apart are equal, in milliseconds: files are written, and mounts
 * switched, piece by piece.
 */
const SETTLE_MS = 150;
/** Readings of a directory that goes on changing, before it is left until the next poll. */
const MAX_READINGS = 20;

/** A configuration directory as it was read at one time, not yet judged. */
export interface DirectoryContent extends ConfigDirectory, ObjectFiles {
  /**
   * SHA-256 over everything that was read, in hexadecimal: equal for equal content, whatever the times of the files.
   */
  readonly digest: string;
}

/**
 * Reads the files of a configuration directory. Never throws because of what the directory holds: that it is missing,
 * too, is a finding.
 * @param dir path of the directory; links in it are followed (see {@link readConfigFiles}).
 */
export function readDirectory(dir: string): DirectoryContent {
  const findings = new Findings();
  const { files, directories } = readConfigFiles(dir, findings);
  const hash = createHash("sha256");
  // Lengths keep apart what would look the same when put together.
  for (const { file, text } of files) hash.update(`${file.length} ${text.length} ${file}${text}`);
  for (const problem of findings.problems()) hash.update(formatProblem(problem));
  return { files, directories, findings, digest: hash.digest("hex") };
}

/** Plans a change of a directory as it is now. */
export async function planDirectoryChange(dir: string, change: WantedChange): Promise<ChangePlan> {
  const content = await readDirectory(dir);
  const plan = await planChange(content, change);
  const problems = boundProblems(content.files, plan.files);
  return problems.length === 0 ? plan : { ...plan, problems: [...plan.problems, ...problems], files: [] };
}

/** What the next reading would refuse as too much. */
function boundProblems(files: ObjectFiles["files"], changed: ChangePlan["files"]): ConfigProblem[] {
  const texts = new Map<string, string | undefined>(files.map(({ file, text }) => [file, text]));
  for (const { file, text } of changed) texts.set(file, text);
  const sizes = [...texts].flatMap(([file, text]) =>
    text === undefined ? [] : [[file, Buffer.byteLength(text)] as const],
  );
  const problem = (file: string, reason: string): ConfigProblem => ({
    file,
    line: 1,
    path: "",
    reason,
    severity: "error",
  });
  const large = sizes.filter(([file, size]) => size > MAX_FILE_SIZE && changed.some((each) => each.file === file));
  const problems = large.map(([file, size]) =>
    problem(file, `expected at most 1 MiB, got ${size} bytes; split the file`),
  );
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);
  if (changed.length > 0 && (total > MAX_TOTAL_SIZE || sizes.length > MAX_FILES))
    problems.push(
      problem(".", `expected at most ${MAX_FILES} files with 16 MiB, got ${sizes.length} with ${total} bytes`),
    );
  return problems;
}

/**
 * What a look at a directory found: what was judged before, a directory that goes on changing, a state to be put in
 * force or refused, or that it could not be looked at. Plain data, so that it can cross between threads.
 */
export type Judgement =
  | { readonly kind: "unchanged" | "unsettled" }
  | { readonly kind: "judged"; readonly loaded: LoadResult }
  | { readonly kind: "failed"; readonly error: unknown };

/** Looks at a directory again and again, and judges what it holds when that is new. */
export class DirectoryJudge {
  readonly #dir: string;
  readonly #settle: () => Promise<void>;
  /** Digest of the content that was judged last, good or bad. */
  #judged: string;
  #directories: readonly string[];

  constructor(
    dir: string,
    known: { readonly digest: string; readonly directories: readonly string[] },
    settle: () => Promise<void> = async () => await sleep(SETTLE_MS),
  ) {
    this.#dir = dir;
    this.#judged = known.digest;
    this.#directories = known.directories;
    this.#settle = settle;
  }

  /** What is known now, for a judge that goes on. */
  get known(): { digest: string; directories: readonly string[] } {
    return { digest: this.#judged, directories: this.#directories };
  }

  /** @param force judges also what was judged before. Never throws. One look at a time. */
  async look(force: boolean): Promise<Judgement> {
    try {
      let content = readDirectory(this.#dir);
      if (content.digest === this.#judged && !force) return { kind: "unchanged" };
      for (let reading = 1; ; reading++) {
        await this.#settle();
        const again = readDirectory(this.#dir);
        if (again.digest === content.digest) break;
        if (reading === MAX_READINGS) return { kind: "unsettled" };
        content = again;
      }
      if (content.digest === this.#judged && !force) return { kind: "unchanged" };
      const loaded = await interpret(content);
      this.#judged = content.digest;
      this.#directories = content.directories;
      return { kind: "judged", loaded };
    } catch (error) {
      // Not judged, so that the next look tries again.
      this.#judged = "";
      return { kind: "failed", error };
    }
  }
}
