import type { BlobStore } from "../../app/ports/blob-store.ts";

/** Takes a line for the log. */
export interface StoreLog {
  info(fields: Record<string, unknown>, message: string): void;
}

/**
 * A kind of store, as the `index.ts` of its folder exports it. Loading that file, and `parse`, load no package of
 * others; `open` does.
 */
export interface StoreKind<L> {
  /** Of its URLs, without the colon. */
  readonly scheme: string;
  /** How its URLs look, for messages. */
  readonly form: string;
  /**
   * Reads a URL of this scheme.
   * @throws RangeError that repeats nothing of the URL that could be secret.
   */
  parse(text: string): L;
  /** The place as a URL, for people; what `parse` read of it. */
  describe(location: L): string;
  /**
   * Opens the store there, and makes it when there is none. @throws BlobStoreError, FileLockedError with what to do.
   */
  open(location: L, log: StoreLog): Promise<BlobStore>;
}
