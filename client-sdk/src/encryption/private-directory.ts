/** Directories for key material that programs can only read from files. */
import { rmSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StrongroomError } from "../errors.ts";

/**
 * The name of a socket has at most 108 bytes (Linux; 104 on macOS) with its directory; gpg-agent's longest is
 * `S.gpg-agent.browser`.
 */
const LONGEST_DIRECTORY = 104 - "/S.gpg-agent.browser".length - 1;

/** Those that exist. A process that ends in a hurry, by a second Ctrl-C, leaves no keys behind either. */
const existing = new Set<string>();

function removeAll(): void {
  for (const path of existing) {
    try {
      rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
    } catch {
      // A program that ends too may still write there; the others must go all the same.
    }
  }
}

/** A directory that only this user can enter (mode 0700), short enough to hold gpg-agent's sockets. */
export class PrivateDirectory {
  /** Its full path. */
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes an empty one in the system's directory for temporary files, or in `/tmp` where that has too long a name. */
  static async create(): Promise<PrivateDirectory> {
    const parent = tmpdir().length + "/sr-XXXXXX".length <= LONGEST_DIRECTORY ? tmpdir() : "/tmp";
    const path = await mkdtemp(join(parent, "sr-")).catch((cause: NodeJS.ErrnoException) => {
      throw new StrongroomError(
        `No temporary folder for keys can be made in ${parent} (${cause.code}); set TMPDIR to a folder that exists ` +
          "and can be written to.",
        { code: "failed_precondition", cause },
      );
    });
    if (existing.size === 0) process.on("exit", removeAll);
    existing.add(path);
    return new PrivateDirectory(path);
  }

  /** Writes a file that only this user can read (mode 0600), and gives its path. */
  async write(name: string, content: Uint8Array | string): Promise<string> {
    const path = join(this.path, name);
    await writeFile(path, content, { mode: 0o600, flag: "wx" });
    return path;
  }

  /** Deletes it with all that is in it. */
  async remove(): Promise<void> {
    // An agent that is just ending may still delete its sockets there.
    await rm(this.path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    existing.delete(this.path);
    if (existing.size === 0) process.off("exit", removeAll);
  }
}
