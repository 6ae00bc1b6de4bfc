import { formatSize } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { type HealthCheck, okCheck } from "../../domain/health.ts";
import type { SizedVersion } from "../../domain/shrunk.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { CollectionRow, Transaction } from "../ports/database.ts";
import type { DiskReserve } from "../uploads/disk-reserve.ts";
import { quotaExceeded, roomFor } from "../uploads/room.ts";

/**
 * The health check `room`: whether the next backup would be admitted, if it is as large as the newest version. Uploads
 * that somebody continues count as if they had ended, since the next backup comes after them; a commit that is not done
 * when its lease has run out counts, since the store does not finish it.
 * @param newest of its live versions, the one with the highest number.
 */
export async function roomCheck(
  tx: Transaction,
  { config, disk }: { readonly config: ConfigSource; readonly disk: DiskReserve | undefined },
  spec: CollectionSpec,
  row: CollectionRow,
  newest: SizedVersion | undefined,
): Promise<HealthCheck> {
  const name = "room";
  const holding = await tx.uploads.holding(row.id);
  const uploads = holding.map((upload) =>
    upload.state === "committing" && upload.leaseExpiresAt <= tx.now
      ? upload
      : { ...upload, state: "aborted" as const },
  );
  const room = await roomFor(tx, config, spec, { row, uploads }, undefined);
  const size = newest === undefined || newest.size < 1n ? 1n : newest.size;
  const like = newest === undefined ? "" : ` as large as version ${newest.number}, ${formatSize(size)}`;
  const lacking = room.total < size ? undefined : await disk?.lacking(size);
  if (lacking !== undefined) {
    return {
      name,
      status: (await disk?.lacking(1n)) === undefined ? "warning" : "failed",
      message: `expected room for a backup${like}; ${lacking.message}`,
      since: undefined,
      advice: "Free space on it or enlarge it, or remove versions (`strongroom rm`).",
    };
  }
  if (room.total >= size) {
    const left = await disk?.left();
    if (left === undefined || left >= room.total)
      return okCheck(name, `the next backup has room for ${formatSize(room.total)}`);
    return okCheck(name, `the next backup has room for ${formatSize(left)}, which the disk of the storage has left`);
  }
  const { reason, message } = quotaExceeded(room, 0n, size);
  return {
    name,
    status: room.total === 0n ? "failed" : "warning",
    message: `expected room for a backup${like}; the next one would be refused with ${reason}`,
    since: undefined,
    advice: `${message.slice(0, 1).toUpperCase()}${message.slice(1)}.`,
  };
}
