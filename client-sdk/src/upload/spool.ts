/** The temporary file for segments that do not fit into memory while the server is away or slow. */
import { randomUUID } from "node:crypto";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StrongroomError } from "../errors.ts";

/** Codes with which a file system says that it takes no more: full, quota used up, file too large. */
const FULL = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

/** The temporary file cannot be made, or takes no more. Nothing was published. */
export class SpoolError extends StrongroomError {
  /** Folder of the file. */
  readonly directory: string;

  constructor(directory: string, cause: NodeJS.ErrnoException) {
    const what = FULL.has(cause.code ?? "")
      ? `There is no room left in ${directory} for segments that the server has not acknowledged yet`
      : `No temporary file for segments can be used in ${directory}`;
    super(
      `${what} (${cause.code ?? cause.message}). Choose another folder (option spoolDirectory, --spool-dir), ` +
        "or a smaller file (option spoolLimit, --spool).",
      { code: "failed_precondition", cause },
    );
    this.directory = directory;
  }
}

/**
 * A file of slots of one size. It has mode 0600 and no name: it is unlinked as soon as it is open, so nobody else finds
 * it, and the system frees its space when this process ends, however it ends. What is in it is ciphertext only.
 */
export class Spool {
  /** The most segments it holds. */
  readonly slots: number;
  readonly #file: FileHandle;
  readonly #directory: string;
  readonly #slotSize: number;
  readonly #free: number[] = [];
  #made = 0;

  private constructor(file: FileHandle, directory: string, slotSize: number, slots: number) {
    this.#file = file;
    this.#directory = directory;
    this.#slotSize = slotSize;
    this.slots = slots;
  }

  /**
   * Opens the file, which has no size before something is written.
   *
   * @param directory - its folder; empty for the system's (`TMPDIR`)
   * @param slotSize - bytes of a segment
   * @param slots - the most segments it may hold
   * @throws SpoolError when the folder is missing or not writable
   */
  static async open(directory: string, slotSize: number, slots: number): Promise<Spool> {
    const folder = directory === "" ? tmpdir() : directory;
    const path = join(folder, `strongroom-${randomUUID()}.spool`);
    try {
      const file = await open(path, "wx+", 0o600);
      try {
        await unlink(path);
      } catch (error) {
        await file.close();
        throw error;
      }
      return new Spool(file, folder, slotSize, slots);
    } catch (error) {
      throw new SpoolError(folder, error as NodeJS.ErrnoException);
    }
  }

  /** Whether another segment may be written. */
  get hasRoom(): boolean {
    return this.#free.length > 0 || this.#made < this.slots;
  }

  /**
   * Writes a segment; call it only while there is room.
   * @returns its slot
   * @throws SpoolError when the file system takes no more
   */
  async write(bytes: Uint8Array): Promise<number> {
    const slot = this.#free.pop() ?? this.#made++;
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, slot * this.#slotSize + done);
        done += bytesWritten;
      }
      return slot;
    } catch (error) {
      this.#free.push(slot);
      throw new SpoolError(this.#directory, error as NodeJS.ErrnoException);
    }
  }

  /**
   * Reads a part of a segment.
   * @throws SpoolError when the file cannot be read
   */
  async read(slot: number, offset: number, length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafeSlow(length);
    try {
      for (let done = 0; done < length; ) {
        const at = slot * this.#slotSize + offset + done;
        const { bytesRead } = await this.#file.read(bytes, done, length - done, at);
        if (bytesRead === 0) throw new Error("the file is shorter than what was written to it");
        done += bytesRead;
      }
    } catch (error) {
      throw new SpoolError(this.#directory, error as NodeJS.ErrnoException);
    }
    return bytes;
  }

  /** Gives a slot back. */
  free(slot: number): void {
    this.#free.push(slot);
  }

  /** Closes the file, which frees its space. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}
