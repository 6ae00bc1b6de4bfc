import { rmSync, type Stats, statSync } from "node:fs";
import { type FileHandle, open, realpath, rename, rm, stat, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Version } from "@strongroom/client-sdk";
import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT } from "@strongroom/command-line/exit-codes";
import { formatSize } from "@strongroom/protocol/sizes";
import type { Destination } from "../destination.ts";
import { CommandFailedError } from "../errors.ts";

/**
 * A file, written as `FILE.partial` (mode 0600: a restored dump is no less secret than the database) and renamed when
 * everything was verified, so that whatever has the name FILE is whole.
 */
export class FileDestination implements Destination {
  readonly #path: (version: Version) => string;
  readonly #force: boolean;
  readonly #decrypts: boolean;
  #target = "";
  #partial = "";
  #file: FileHandle | undefined;
  /** What the partial file was when it was made, to distinguish it from another's of the same name. */
  #made: Stats | undefined;
  /** A process that ends in a hurry, by a second Ctrl-C, leaves nothing that stands in the next one's way. */
  readonly #onExit = (): void => {
    if (this.#isOwn(statSync(this.#partial, { throwIfNoEntry: false }))) rmSync(this.#partial, { force: true });
  };

  /**
   * @param path the file, or how its name follows from the version.
   * @param options `decrypts`: what is written is what is inside the version.
   */
  constructor(
    path: string | ((version: Version) => string),
    { force, decrypts }: { readonly force: boolean; readonly decrypts: boolean },
  ) {
    this.#path = typeof path === "string" ? () => path : path;
    if (typeof path === "string") this.#target = path;
    this.#force = force;
    this.#decrypts = decrypts;
  }

  get name(): string {
    return this.#target;
  }

  /** Refuses an output that exists, so that it is reported before anything is fetched. */
  async check(): Promise<void> {
    if (this.#target !== "") this.#target = await usable(this.#target, this.#force);
  }

  async open(version: Version): Promise<void> {
    this.#target = await usable(this.#path(version), this.#force);
    const partial = `${this.#target}.partial`;
    if (this.#force) await rm(partial, { force: true });
    await requireSpace(this.#target, leastSize(version, this.#decrypts));
    try {
      this.#file = await open(partial, "wx", 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      throw new UsageError(`${partial} exists: another restore is writing it, or one was killed.`, {
        hint: "remove it, or give --force",
      });
    }
    this.#partial = partial;
    this.#made = await this.#file.stat();
    process.on("exit", this.#onExit);
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      const { bytesWritten } = await this.#named(this.#file!.write(rest));
      rest = rest.subarray(bytesWritten);
    }
  }

  async finish(): Promise<void> {
    await this.#named(this.#file!.sync());
    if (!this.#isOwn(await stat(this.#partial).catch(() => undefined))) {
      const partial = this.#partial;
      this.#partial = ""; // what has the name now is somebody else's
      throw new CommandFailedError(`${partial} was replaced meanwhile, by another restore with --force or by hand`);
    }
    await this.#close();
    await usable(this.#target, this.#force);
    await rename(this.#partial, this.#target);
    process.off("exit", this.#onExit);
    this.#partial = "";
    await syncFolder(dirname(this.#target));
  }

  async discard(): Promise<void> {
    await this.#close();
    process.off("exit", this.#onExit);
    const partial = this.#partial;
    this.#partial = "";
    if (partial !== "" && this.#isOwn(await stat(partial).catch(() => undefined))) await rm(partial, { force: true });
  }

  /** The system's error of an open file does not say which file it is. */
  async #named<T>(work: Promise<T>): Promise<T> {
    return await work.catch((error: unknown) => {
      throw error instanceof Error ? Object.assign(error, { path: this.#partial }) : error;
    });
  }

  #isOwn(named: Stats | undefined): boolean {
    return named !== undefined && named.ino === this.#made?.ino && named.dev === this.#made.dev;
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

/**
 * Makes the rename last through a loss of power. Some file systems and Windows do not know this for folders; the
 * content is safe then too.
 */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path).catch(() => undefined);
  await folder?.sync().catch(() => {});
  await folder?.close();
}

/**
 * The fewest bytes that a version becomes: of a compressed one nobody knows how many more. Encryption adds less than
 * one in a hundred, armor a third.
 */
function leastSize({ sizeBytes, armored }: Version, decrypts: boolean): bigint {
  if (!decrypts) return sizeBytes;
  return (sizeBytes * (armored ? 73n : 99n)) / 100n;
}

/**
 * Refuses before the first byte what cannot fit. Where the file system does not say what it has, nothing is refused.
 * @throws {CommandError}
 */
async function requireSpace(path: string, least: bigint): Promise<void> {
  const found = await statfs(dirname(path), { bigint: true }).catch(() => undefined);
  if (found === undefined || found.blocks === 0n) return;
  const free = found.bavail * found.bsize;
  if (free >= least) return;
  throw new CommandError(
    `${path}: expected at least ${formatSize(least)} free on its file system, got ${formatSize(free)}`,
    EXIT.unexpected,
    { hint: "make room, or give an --output on another file system; nothing was written", reason: "ENOSPC" },
  );
}

/** The real path of an output that may be written. */
async function usable(path: string, force: boolean): Promise<string> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (found === undefined) return path;
  if (found.isDirectory()) throw new UsageError(`${path} is a folder; give --output the path of a file.`);
  // A rename would put a file in the place of the device.
  if (!found.isFile())
    throw new UsageError(`${path} is no regular file.`, { hint: "write to standard output and redirect it" });
  if (!force) throw new UsageError(`${path} exists.`, { hint: "give another --output, or --force to overwrite it" });
  return await realpath(path);
}

/** Endings that say a file is encrypted. */
const ENCRYPTION_ENDING = /\.(gpg|pgp|asc|age)$/i;

/**
 * The name for a version in the current folder, without the endings of what was undone. The server's word is not
 * trusted: only the last part of a path counts, and no control characters.
 * @param decoded the version is decrypted and decompressed.
 */
export function safeFilename(version: Version, decoded: { decrypted: boolean; decompressed: boolean }): string {
  let name = basename(version.filename.replaceAll("\\", "/")).replace(/[\p{Cc}\p{Cf}]/gu, "_");
  if (decoded.decrypted) name = name.replace(ENCRYPTION_ENDING, "");
  if (decoded.decompressed) name = name.replace(/\.zst$/i, "");
  if (name === "" || /^\.+$/.test(name)) name = `version-${version.number}`;
  return join(".", name);
}
