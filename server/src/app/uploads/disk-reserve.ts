import { formatSize } from "@strongroom/protocol/sizes";
import { DomainError } from "../../domain/errors.ts";

/** A disk of this machine that database or store lie on. */
export interface ReservedDisk {
  /** What lies on it. */
  readonly check: "database" | "storage";
  /** Bytes that can still be written. */
  readonly freeBytes: () => Promise<bigint>;
  /** Bytes that uploads leave free; 0 for none. */
  readonly reserveBytes: () => Promise<bigint>;
}

/** The longest that a refused upload is asked to wait, in milliseconds. */
const RETRY_MS = 10_000;

/**
 * What uploads leave free on the disks of this machine. To remove a version or to end an upload takes a little room in
 * the database; where the last byte of a disk went to uploads, nothing could make room any more.
 */
export class DiskReserve {
  readonly #disks: readonly ReservedDisk[];
  /** Bytes of segments that are being written, which the disk may not have seen yet. */
  #coming = 0n;

  /** @param disks none where database and store are elsewhere. */
  constructor(disks: readonly ReservedDisk[]) {
    this.#disks = disks;
  }

  /** What speaks against so many bytes more, for a person; undefined for nothing. */
  async lacking(bytes: bigint): Promise<{ readonly disk: ReservedDisk; readonly message: string } | undefined> {
    for (const disk of this.#disks) {
      const figures = await figuresOf(disk);
      if (figures === undefined) continue;
      const { reserve, free } = figures;
      // No byte of an upload goes to the database. Where both are on one disk, it is looked at as the storage's as well.
      const needed = disk.check === "storage" ? this.#coming + bytes : 0n;
      if (free >= reserve + needed) continue;
      const message =
        `the disk of the ${disk.check} has ${formatSize(free)} left, and ${formatSize(reserve)} of it are held back ` +
        "so that versions can still be removed (--disk-reserve)";
      return { disk, message };
    }
    return undefined;
  }

  /** How many bytes the disk of the storage takes beside its reserve; undefined where it is elsewhere or not limited. */
  async left(): Promise<bigint | undefined> {
    const storage = this.#disks.find(({ check }) => check === "storage");
    const figures = storage && (await figuresOf(storage));
    if (figures === undefined) return undefined;
    const left = figures.free - figures.reserve - this.#coming;
    return left > 0n ? left : 0n;
  }

  /**
   * Refuses bytes that would touch the reserve; else counts them until they are written.
   * @returns to be called when they are written, or will not be.
   * @throws DomainError STORE_UNAVAILABLE, DATABASE_UNAVAILABLE by whose disk it is
   */
  async take(bytes: bigint): Promise<() => void> {
    await this.require(bytes);
    this.#coming += bytes;
    return () => {
      this.#coming -= bytes;
    };
  }

  /** Refuses as {@link take}, and counts nothing. */
  async require(bytes: bigint): Promise<void> {
    const lacking = await this.lacking(bytes);
    if (lacking === undefined) return;
    const isStore = lacking.disk.check === "storage";
    throw new DomainError(
      isStore ? "STORE_UNAVAILABLE" : "DATABASE_UNAVAILABLE",
      `${lacking.message}: notify the operator, who has to free space or enlarge it. Until then repeat the call`,
      { retryAfterMs: RETRY_MS, metadata: { cause: isStore ? "store-full" : "disk-full" } },
    );
  }
}

/**
 * Undefined where nothing is held back, and where the disk says nothing (it was unmounted, say): store and database then
 * tell by themselves what is wrong.
 */
async function figuresOf(disk: ReservedDisk): Promise<{ readonly reserve: bigint; readonly free: bigint } | undefined> {
  try {
    const reserve = await disk.reserveBytes();
    return reserve === 0n ? undefined : { reserve, free: await disk.freeBytes() };
  } catch {
    return undefined;
  }
}
