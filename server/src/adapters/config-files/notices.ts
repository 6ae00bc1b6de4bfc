import { type FSWatcher, watch } from "node:fs";

/**
 * Directories that are watched at most; the rest is found by polling. Every watch takes one of the few a user may have.
 */
const MAX_WATCHED = 200;

/**
 * Calls back when something in one of several directories changed, where the file system reports it. Never throws, and
 * promises nothing: network file systems stay silent, and changes while the directories are being taken up are missed.
 * So it only makes a poll quicker.
 */
export class DirectoryNotices {
  readonly #onNotice: () => void;
  #watchers: FSWatcher[] = [];

  constructor(onNotice: () => void) {
    this.#onNotice = onNotice;
  }

  /**
   * Watches these directories from now on, and no others. Directories that were replaced under the same name need it
   * too.
   */
  follow(directories: readonly string[]): void {
    this.close();
    for (const directory of directories.slice(0, MAX_WATCHED)) {
      try {
        const watcher = watch(directory, { persistent: false }, this.#onNotice);
        // One that was deleted, or too many watches of this user: the poll goes on.
        watcher.on("error", () => watcher.close());
        this.#watchers.push(watcher);
      } catch {}
    }
  }

  /** No further notices. */
  close(): void {
    for (const watcher of this.#watchers) watcher.close();
    this.#watchers = [];
  }
}
