import type { BlobStore } from "../app/ports/blob-store.ts";
import { describeUrl } from "../domain/describe-url.ts";
import type { StoreKind, StoreLog } from "./blob-store/store-kind.ts";
import { type DirectoryLocation, directory } from "./filesystem/index.ts";
import { type MemoryLocation, memory } from "./memory/index.ts";
import { s3 } from "./s3/index.ts";
import type { S3Location } from "./s3/s3-location.ts";

/** Where objects are kept, as the storage URL says. */
export type StorageLocation = S3Location | DirectoryLocation | MemoryLocation;

/** Every kind of store. Another one is a line here and in {@link StorageLocation}. */
const STORES: { readonly [K in StorageLocation["kind"]]: StoreKind<Extract<StorageLocation, { kind: K }>> } = {
  s3,
  directory,
  memory,
};

/**
 * Reads a storage URL.
 * @throws RangeError that repeats nothing of the URL that could be secret.
 */
export function parseStorage(text: string): StorageLocation {
  const kinds = Object.values(STORES);
  const kind = kinds.find(({ scheme }) => text.startsWith(`${scheme}:`));
  if (kind !== undefined) return kind.parse(text);
  const forms = kinds.map(({ form }) => form);
  throw new RangeError(`expected ${forms.slice(0, -1).join(", ")} or ${forms.at(-1)}, got ${describeUrl(text)}`);
}

/** A place as a URL without credentials, for people. */
export function describeStorage(location: StorageLocation): string {
  return (STORES[location.kind] as StoreKind<StorageLocation>).describe(location);
}

/**
 * Opens the store that a storage URL names, whose code is loaded only now.
 * @throws BlobStoreError, FileLockedError with what to do.
 */
export async function openStore(location: StorageLocation, log: StoreLog): Promise<BlobStore> {
  const kind = STORES[location.kind] as StoreKind<StorageLocation>;
  return await kind.open(location, log);
}
