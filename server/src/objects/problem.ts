/** Where something stands in a configuration directory. */
export interface Place {
  /** Relative to the configuration directory, with `/`. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** Field within the object, such as `spec.windows[0].duration`; empty for a whole file or document. */
  readonly path: string;
}

/**
 * Something to be said about a configuration directory. The reason never contains a value of a Secret or a password.
 */
export interface ConfigProblem extends Place {
  /** What was expected, what it got, what to do. */
  readonly reason: string;
  /** An error keeps the configuration from being used; a warning does not. */
  readonly severity: "error" | "warning";
}

/**
 * Writes a problem as one line: `file:line: path: reason`; the path is left out where there is none, and the line where
 * it is the directory itself.
 */
export function formatProblem(problem: ConfigProblem): string {
  const path = problem.path === "" ? "" : `${problem.path}: `;
  const where = problem.file === "." ? "the directory" : `${problem.file}:${problem.line}`;
  return `${where}: ${path}${problem.reason}`;
}

/** Other places that a folded line names. */
const NAMED = 3;

/** Problems as lines, each with its severity; the same reason at several places is one line that names some of them. */
export function formatFolded(problems: readonly ConfigProblem[]): string[] {
  const folds = Map.groupBy(problems, ({ path, reason }) => `${path.replaceAll(/\[\d+\]/g, "")}\n${reason}`);
  return [...folds.values()].map(([first, ...others]) => {
    const named = others.slice(0, NAMED).map(({ file, line }) => `${file}:${line}`);
    if (others.length > NAMED) named.push(`${others.length - NAMED} more`);
    const same = others.length === 0 ? "" : `; the same at ${named.join(", ")}`;
    return `${first!.severity}: ${formatProblem(first!)}${same}`;
  });
}

function inOrder(problems: readonly ConfigProblem[]): ConfigProblem[] {
  return problems.toSorted((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1));
}

function placed({ file, line, path }: Place): Place {
  return { file, line, path };
}

/** Collects what is said while a directory is read. */
export class Findings {
  readonly #problems: ConfigProblem[] = [];
  readonly #warnings: ConfigProblem[] = [];
  /** Who has a finding by way of what they refer to, by its place and reason. */
  readonly #through = new Map<ConfigProblem, string[]>();
  readonly #same = new Map<string, ConfigProblem>();
  #errors = 0;

  /** Errors so far; readers compare it before and after an object to know whether that object is whole. */
  get errorCount(): number {
    return this.#errors;
  }

  /**
   * Collects what is said of something for the sake of an object that refers to it: the same of several objects is one
   * finding that names them.
   */
  through(who: string): Pick<Findings, "error" | "warn"> {
    return {
      error: (place, reason) => {
        this.#errors++;
        this.#add(this.#problems, { ...placed(place), reason, severity: "error" }, who);
      },
      warn: (place, reason) => this.#add(this.#warnings, { ...placed(place), reason, severity: "warning" }, who),
    };
  }

  #add(list: ConfigProblem[], problem: ConfigProblem, who: string): void {
    const key = `${problem.severity} ${formatProblem(problem)}`;
    const known = this.#same.get(key);
    if (known !== undefined) {
      this.#through.get(known)?.push(who);
      return;
    }
    this.#same.set(key, problem);
    this.#through.set(problem, [who]);
    list.push(problem);
  }

  #named(problem: ConfigProblem): ConfigProblem {
    const who = this.#through.get(problem);
    if (who === undefined) return problem;
    const more = who.length > NAMED ? ` and ${who.length - NAMED} more` : "";
    return { ...problem, reason: `${problem.reason} (for ${who.slice(0, NAMED).join(", ")}${more})` };
  }

  /** Adds an error. */
  error({ file, line, path }: Place, reason: string): void {
    this.#errors++;
    this.#problems.push({ file, line, path, reason, severity: "error" });
  }

  /** Adds a warning. */
  warn({ file, line, path }: Place, reason: string): void {
    this.#warnings.push({ file, line, path, reason, severity: "warning" });
  }

  /** The errors, by file and line. */
  problems(): ConfigProblem[] {
    return inOrder(this.#problems.map((problem) => this.#named(problem)));
  }

  /** The warnings, by file and line. */
  warnings(): ConfigProblem[] {
    return inOrder(this.#warnings.map((problem) => this.#named(problem)));
  }
}

/** Problems a message lists before it says how many more there are. */
const LISTED = 20;

/** A configuration directory cannot be used. The message lists up to 20 problems, a line each. */
export class ConfigInvalidError extends Error {
  override name = "ConfigInvalidError";
  /** The directory as it was given. */
  readonly dir: string;
  /** All problems, by file and line. */
  readonly problems: readonly ConfigProblem[];

  constructor(dir: string, problems: readonly ConfigProblem[]) {
    const lines = problems.slice(0, LISTED).map((problem) => `  ${formatProblem(problem)}`);
    if (problems.length > LISTED) {
      lines.push(`  and ${problems.length - LISTED} more; \`strongroom check-config\` lists all of them`);
    }
    const count = problems.length === 1 ? "a problem" : `${problems.length} problems`;
    super(`The configuration in ${dir} has ${count}:\n${lines.join("\n")}`);
    this.dir = dir;
    this.problems = problems;
  }
}
