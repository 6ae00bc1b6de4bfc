import type { ConfigSource } from "../../app/ports.ts";
import type { Configuration } from "../../domain/objects.ts";
import { loadConfiguration } from "./load-configuration.ts";
import { ConfigInvalidError, type ConfigProblem } from "./problem.ts";

/** A configuration source that is a directory of files, read once when it is opened. */
export class ConfigFilesSource implements ConfigSource {
  /** The directory as it was given. */
  readonly dir: string;
  /** What is worth a word about the state in force, for the log. */
  readonly warnings: readonly ConfigProblem[];
  readonly #configuration: Configuration;

  private constructor(dir: string, configuration: Configuration, warnings: readonly ConfigProblem[]) {
    this.dir = dir;
    this.warnings = warnings;
    this.#configuration = configuration;
  }

  /**
   * Reads a directory.
   * @throws {ConfigInvalidError} when it has any problem; warnings do not count.
   */
  static async open(dir: string): Promise<ConfigFilesSource> {
    const { configuration, problems, warnings } = await loadConfiguration(dir);
    if (problems.length > 0) throw new ConfigInvalidError(dir, problems);
    return new ConfigFilesSource(dir, configuration, warnings);
  }

  /** The state in force. */
  current(): Configuration {
    return this.#configuration;
  }
}
