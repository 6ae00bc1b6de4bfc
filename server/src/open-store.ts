import { DirectoryBlobStore } from "./adapters/filesystem/directory-blob-store.ts";
import { MemoryBlobStore } from "./adapters/memory/memory-blob-store.ts";
import type { BlobStore } from "./app/ports/blob-store.ts";
import type { StorageLocation } from "./storage-url.ts";

/** Takes a line for the log. */
export interface StoreLog {
  info(fields: Record<string, unknown>, message: string): void;
}

/**
 * Opens the store that a storage URL names. The S3 client is loaded only when it is used: it would double the memory and the start-up time of the
 * embedded default.
 * @throws BlobStoreError, FileLockedError with what to do.
 */
export async function openStore(location: StorageLocation, log: StoreLog): Promise<BlobStore> {
  if (location.kind === "memory") return new MemoryBlobStore({ discard: location.discard });
  if (location.kind === "directory") return await DirectoryBlobStore.open(location.path);
  const { openS3Store } = await import("./adapters/s3/open-s3-store.ts");
  return await openS3Store(location, (fields, message) => log.info(fields, message));
}
