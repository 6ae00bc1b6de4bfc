import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { ConfigSource, ConfigStatus } from "../../app/ports/config-source.ts";
import type { Log } from "../../app/settings.ts";
import type { Configuration } from "../../domain/configuration.ts";
import { configurationChanges } from "../../domain/configuration-changes.ts";
import { ConfigInvalidError, type ConfigProblem, Findings, formatProblem } from "../../objects/problem.ts";
import { interpret, type LoadResult, type ObjectFiles } from "../../objects/read-objects.ts";
import { type ConfigDirectory, readConfigFiles } from "./files.ts";
import { DirectoryNotices } from "./notices.ts";

/**
 * A change is taken up when two readings this far apart are equal, in milliseconds: files are written, and mounts
 * switched, piece by piece.
 */
const SETTLE_MS = 150;
/** How soon after a notice the directory is looked at, in milliseconds: one change gives several notices. */
const NOTICE_MS = 50;
/** Readings of a directory that goes on changing, before it is left until the next poll. */
const MAX_READINGS = 20;
/** Problems and names that one change logs at most. */
const LOGGED = 50;

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
export async function readDirectory(dir: string): Promise<DirectoryContent> {
  const findings = new Findings();
  const { files, directories } = await readConfigFiles(dir, findings);
  const hash = createHash("sha256");
  // Lengths keep apart what would look the same when put together.
  for (const { file, text } of files) hash.update(`${file.length} ${text.length} ${file}${text}`);
  for (const problem of findings.problems()) hash.update(formatProblem(problem));
  return { files, directories, findings, digest: hash.digest("hex") };
}

/**
 * Reads and checks a configuration directory: `.yaml`, `.yml` and `.json` files in any layout, with one or several
 * documents each. The layout `<namespace>/<group>/<version>/<kind>/<name>.yaml` of existing installations is a
 * convention only.
 *
 * Never throws because of what the directory holds.
 * @param dir path of the directory.
 */
export async function loadConfiguration(dir: string): Promise<LoadResult> {
  return await interpret(await readDirectory(dir));
}

/**
 * How a look at the directory ended: nothing new, a change in force, a change refused, or one that is still being made.
 */
export type ReloadOutcome = "unchanged" | "changed" | "refused" | "unsettled";

/** Replaceable parts of {@link ConfigFilesSource}. */
export interface ConfigFilesOptions {
  /** Waits between two readings of something that changed; for tests. */
  readonly settle?: () => Promise<void>;
}

/**
 * A configuration source that is a directory of files. It is read when it is opened; {@link ConfigFilesSource.watch}
 * takes up changes from then on. The state in force is replaced as a whole, and only by one without any problem.
 */
export class ConfigFilesSource implements ConfigSource {
  /** The directory as it was given. */
  readonly dir: string;
  readonly #settle: () => Promise<void>;
  #configuration: Configuration;
  #warnings: readonly ConfigProblem[];
  #status: ConfigStatus;
  /** Digest of the content that was judged last, good or bad. */
  #judged: string;
  #directories: readonly string[];
  #running: Promise<unknown> = Promise.resolve();
  #log: Log | undefined;
  #notices: DirectoryNotices | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(dir: string, content: DirectoryContent, loaded: LoadResult, options: ConfigFilesOptions) {
    this.dir = dir;
    this.#settle = options.settle ?? (async () => await sleep(SETTLE_MS));
    this.#configuration = loaded.configuration;
    this.#warnings = loaded.warnings;
    this.#judged = content.digest;
    this.#directories = content.directories;
    this.#status = { problem: undefined, loadedAt: new Date(), reloads: 0, refusals: 0 };
  }

  /**
   * Reads a directory.
   * @throws {ConfigInvalidError} when it has any problem; warnings do not count.
   */
  static async open(dir: string, options: ConfigFilesOptions = {}): Promise<ConfigFilesSource> {
    const content = await readDirectory(dir);
    const loaded = await interpret(content);
    if (loaded.problems.length > 0) throw new ConfigInvalidError(dir, loaded.problems);
    return new ConfigFilesSource(dir, content, loaded, options);
  }

  /** The state in force. */
  current(): Configuration {
    return this.#configuration;
  }

  /** What is worth a word about the state in force, for the log. */
  get warnings(): readonly ConfigProblem[] {
    return this.#warnings;
  }

  /** Whether what the directory holds now is in force. */
  status(): ConfigStatus {
    return this.#status;
  }

  /**
   * Takes up changes from now on: soon after the file system reports one, and at least every `pollMs` milliseconds,
   * since network file systems report nothing. What changed, or why it was refused, goes into the log, once for each
   * change.
   */
  watch(options: { readonly pollMs: number; readonly log: Log }): void {
    this.#log = options.log;
    const next = (ms: number) => {
      clearTimeout(this.#timer);
      if (this.#closed) return;
      this.#timer = setTimeout(look, ms);
      this.#timer.unref();
    };
    let noticed = false;
    let isLooking = false;
    let tookMs = 0;
    // Thousands of files take seconds to read: looking then takes a twentieth of the time, and a fifth while they are
    // being changed.
    const afterNotice = () => Math.max(NOTICE_MS, 4 * tookMs);
    const look = () => {
      const before = noticed;
      noticed = false;
      isLooking = true;
      const started = performance.now();
      void this.reload().then((outcome) => {
        isLooking = false;
        if (outcome === "unchanged") tookMs = performance.now() - started;
        // A directory that was replaced under the same name needs a new watch.
        if (before || outcome !== "unchanged") this.#notices?.follow(this.#directories);
        next(noticed ? afterNotice() : Math.max(options.pollMs, 20 * tookMs));
      });
    };
    this.#notices = new DirectoryNotices(() => {
      if (!noticed && !isLooking) next(afterNotice());
      noticed = true;
    });
    this.#notices.follow(this.#directories);
    next(options.pollMs);
  }

  /** No further changes are taken up. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#notices?.close();
    await this.#running;
  }

  /**
   * Looks at the directory now, after a look that is under way. Never throws.
   * @param force judges and logs also what was judged before, for an operator who asks.
   */
  async reload(force = false): Promise<ReloadOutcome> {
    const look = this.#running.then(async () => await this.#look(force));
    this.#running = look;
    return await look;
  }

  async #look(force: boolean): Promise<ReloadOutcome> {
    try {
      let content = await readDirectory(this.dir);
      if (content.digest === this.#judged && !force) return "unchanged";
      for (let reading = 1; ; reading++) {
        await this.#settle();
        const again = await readDirectory(this.dir);
        if (again.digest === content.digest) break;
        if (reading === MAX_READINGS) return "unsettled";
        content = again;
      }
      if (content.digest === this.#judged && !force) return "unchanged";
      const loaded = await interpret(content);
      this.#judged = content.digest;
      this.#directories = content.directories;
      const problems = [...loaded.problems, ...this.#suspicion(content)];
      return problems.length > 0 ? this.#refuse(problems) : this.#accept(loaded, force);
    } catch (error) {
      this.#log?.error({ err: error }, "configuration: it could not be read; the last good state stays in force");
      this.#status = { ...this.#status, problem: "the directory could not be read; the log says why" };
      // Not judged, so that the next look tries again.
      this.#judged = "";
      return "refused";
    }
  }

  /** A directory that lost all its files looks exactly like one that is not mounted, and would lock everybody out. */
  #suspicion(content: DirectoryContent): ConfigProblem[] {
    const { users, collections, organizations } = this.#configuration;
    if (content.files.length > 0 || users.size + collections.size + organizations.size === 0) return [];
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
