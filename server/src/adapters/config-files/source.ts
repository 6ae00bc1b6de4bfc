import { NotInForceError } from "../../app/ports/config-objects.ts";
import type { ConfigSource, ConfigStatus } from "../../app/ports/config-source.ts";
import type { Log } from "../../app/settings.ts";
import type { Configuration } from "../../domain/configuration.ts";
import { configurationChanges } from "../../domain/configuration-changes.ts";
import { ConfigInvalidError, type ConfigProblem, formatProblem } from "../../objects/problem.ts";
import { interpret, type LoadResult } from "../../objects/read-objects.ts";
import { ConfigThread } from "./config-thread.ts";
import { type DirectoryContent, DirectoryJudge, type Judgement, readDirectory } from "./directory.ts";
import { DirectoryObjects } from "./directory-objects.ts";
import { finishIntents } from "./intent.ts";

/** Looks at a directory that others go on changing, for a change that is to be in force. */
const MAX_LOOKS = 5;
/** Problems and names that one change logs at most. */
const LOGGED = 50;

/**
 * Reads and checks a configuration directory: `.yaml`, `.yml` and `.json` files in any layout, with one or several
 * documents each. The layout `<namespace>/<group>/<version>/<kind>/<name>.yaml` of existing installations is a
 * convention only.
 *
 * Never throws because of what the directory holds.
 * @param dir path of the directory.
 */
export async function loadConfiguration(dir: string): Promise<LoadResult> {
  return await interpret(readDirectory(dir));
}

/**
 * How a look at the directory ended: nothing new, a change in force, a change refused, or one that is still being made.
 */
export type ReloadOutcome = "unchanged" | "changed" | "refused" | "unsettled";

/** Replaceable parts of {@link ConfigFilesSource}. */
export interface ConfigFilesOptions {
  /** Waits between two readings of something that changed; for tests. */
  readonly settle?: () => Promise<void>;
  /** The directory is written elsewhere: in Git, for example. */
  readonly readOnly?: boolean;
}

/**
 * A configuration source that is a directory of files. It is read when it is opened; {@link ConfigFilesSource.watch}
 * takes up changes from then on. The state in force is replaced as a whole, and only by one without any problem.
 */
export class ConfigFilesSource implements ConfigSource {
  /** The directory as it was given. */
  readonly dir: string;
  readonly #judge: DirectoryJudge;
  #configuration: Configuration;
  #warnings: readonly ConfigProblem[];
  #status: ConfigStatus;
  #entries: LoadResult["objects"];
  readonly objects: DirectoryObjects;
  readonly #readOnly: boolean;
  readonly #listeners: ((configuration: Configuration) => void)[] = [];
  #running: Promise<unknown> = Promise.resolve();
  #log: Log | undefined;
  /** From {@link ConfigFilesSource.watch} on. */
  #thread: ConfigThread | undefined;

  private constructor(dir: string, content: DirectoryContent, loaded: LoadResult, options: ConfigFilesOptions) {
    this.dir = dir;
    this.#readOnly = options.readOnly === true;
    this.#judge = new DirectoryJudge(dir, content, options.settle);
    this.#configuration = loaded.configuration;
    this.#warnings = loaded.warnings;
    this.#entries = loaded.objects;
    this.objects = new DirectoryObjects({
      dir,
      readOnly: options.readOnly === true ? "the server was started with --config-read-only" : undefined,
      list: () => this.#entries,
      takeUp: async () => await this.#takeUp(),
    });
    this.#status = { problem: undefined, loadedAt: new Date(), reloads: 0, refusals: 0 };
  }

  /**
   * Reads a directory.
   * @throws {ConfigInvalidError} when it has any problem; warnings do not count.
   */
  static async open(dir: string, options: ConfigFilesOptions = {}): Promise<ConfigFilesSource> {
    // Before it is read; one that is not there is reported by the reader.
    if (options.readOnly !== true) await finishIntents(dir).catch(() => {});
    const content = readDirectory(dir);
    const loaded = await interpret(content);
    if (loaded.problems.length > 0) throw new ConfigInvalidError(dir, loaded.problems);
    return new ConfigFilesSource(dir, content, loaded, options);
  }

  /** The state in force; with it, what was found by now is put in force. */
  current(): Configuration {
    this.#thread?.take();
    return this.#configuration;
  }

  /** Calls this with each state from now on, as it is put in force. */
  onChange(listener: (configuration: Configuration) => void): void {
    this.#listeners.push(listener);
  }

  /** What is worth a word about the state in force, for the log. */
  get warnings(): readonly ConfigProblem[] {
    return this.#warnings;
  }

  /** Whether what the directory holds now is in force. */
  status(): ConfigStatus {
    this.#thread?.take();
    return this.#status;
  }

  /**
   * Takes up changes from now on: soon after the file system reports one, and at least every `pollMs` milliseconds,
   * since network file systems report nothing. What changed, or why it was refused, goes into the log, once for each
   * change. The directory is read and judged in a thread of its own.
   */
  watch(options: { readonly pollMs: number; readonly log: Log }): void {
    this.#log = options.log;
    const data = { dir: this.dir, known: this.#judge.known, pollMs: options.pollMs };
    this.#thread = new ConfigThread(data, (judgement) => void this.#take(judgement, false));
  }

  /** No further changes are taken up. */
  async close(): Promise<void> {
    await this.#thread?.close();
    await this.#running;
  }

  /**
   * Looks at the directory now, after a look that is under way. Never throws.
   * @param force judges and logs also what was judged before, for an operator who asks.
   */
  async reload(force = false): Promise<ReloadOutcome> {
    const look = this.#running.then(async () => {
      if (force && !this.#readOnly) await finishIntents(this.dir).catch(() => {});
      return this.#take(await (this.#thread ?? this.#judge).look(force), force);
    });
    this.#running = look;
    return await look;
  }

  /** Looks until what the directory holds is in force. @throws NotInForceError */
  async #takeUp(): Promise<void> {
    for (let look = 1; ; look++) {
      const outcome = await this.reload();
      const { problem } = this.#status;
      if (outcome !== "unsettled" && problem === undefined) return;
      if (problem !== undefined || look === MAX_LOOKS)
        throw new NotInForceError(problem ?? "the directory goes on being changed by others");
    }
  }

  #take(judgement: Judgement, force: boolean): ReloadOutcome {
    if (judgement.kind === "failed") {
      this.#log?.error(
        { err: judgement.error },
        "configuration: it could not be read; the last good state stays in force",
      );
      this.#status = { ...this.#status, problem: "the directory could not be read; the log says why" };
      return "refused";
    }
    if (judgement.kind !== "judged") return judgement.kind;
    const { loaded } = judgement;
    const problems = [...loaded.problems, ...this.#suspicion(loaded)];
    return problems.length > 0 ? this.#refuse(problems) : this.#accept(loaded, force);
  }

  /** A directory that lost all its files looks exactly like one that is not mounted, and would lock everybody out. */
  #suspicion({ files }: LoadResult): ConfigProblem[] {
    const { users, collections, organizations } = this.#configuration;
    if (files > 0 || users.size + collections.size + organizations.size === 0) return [];
    const reason = "expected configuration files, got none any more; is it mounted? A restart takes an empty directory";
    return [{ file: ".", line: 1, path: "", severity: "error", reason }];
  }

  #accept(loaded: LoadResult, force: boolean): ReloadOutcome {
    const changes = configurationChanges(this.#configuration, loaded.configuration);
    const known = new Set(this.#warnings.map(formatProblem));
    const isChanged = changes.added.length + changes.changed.length + changes.removed.length > 0;
    const wasWrong = this.#status.problem !== undefined;
    this.#configuration = loaded.configuration;
    this.#warnings = loaded.warnings;
    this.#entries = loaded.objects;
    for (const listener of this.#listeners) listener(loaded.configuration);
    const reloads = this.#status.reloads + (isChanged ? 1 : 0);
    this.#status = { ...this.#status, problem: undefined, loadedAt: new Date(), reloads };

    for (const warning of loaded.warnings) {
      if (!known.has(formatProblem(warning)))
        this.#log?.warn(placeOf(warning), `configuration: ${formatProblem(warning)}`);
    }
    if (isChanged) {
      const fields = { added: some(changes.added), changed: some(changes.changed), removed: some(changes.removed) };
      this.#log?.info(fields, `configuration: changes are in force${wasWrong ? ", and it is valid again" : ""}`);
      const frozen = changes.removed.filter((name) => name.startsWith("BackupCollection/"));
      if (frozen.length > 0)
        this.#log?.warn(
          { collections: some(frozen) },
          "configuration: collections were taken out; those with versions are frozen until they are put back",
        );
    } else if (wasWrong || force) {
      this.#log?.info({}, `configuration: ${wasWrong ? "valid again" : "read again and valid"}, nothing changed`);
    }
    return isChanged || wasWrong ? "changed" : "unchanged";
  }

  #refuse(problems: readonly ConfigProblem[]): ReloadOutcome {
    const first = formatProblem(problems[0]!);
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
    this.#status = { ...this.#status, problem: `${first}${more}`, refusals: this.#status.refusals + 1 };
    for (const problem of problems.slice(0, LOGGED))
      this.#log?.error(placeOf(problem), `configuration: ${formatProblem(problem)}`);
    this.#log?.error(
      { problems: problems.length },
      "configuration: the change is refused, the last good state stays in force; `strongroom check-config` " +
        "lists all problems",
    );
    return "refused";
  }
}

function placeOf({ file, line, path }: ConfigProblem): Record<string, unknown> {
  return { file, line, path };
}

function some(names: readonly string[]): readonly string[] {
  return names.length <= LOGGED ? names : [...names.slice(0, LOGGED), `and ${names.length - LOGGED} more`];
}
