import { DomainError } from "../../domain/errors.ts";
import { BlobStoreFullError } from "../ports/blob-store.ts";

/**
 * The refusal of a call that the store failed. A full store is named to the caller, since waiting for it helps only
 * when somebody makes room.
 * @param what of the call, for a person: what failed, and what to do.
 */
export function storeFailure(what: string, cause: unknown, retryAfterMs: number): DomainError {
  if (!(cause instanceof BlobStoreFullError))
    return new DomainError("STORE_UNAVAILABLE", what, { cause, retryAfterMs });
  return new DomainError(
    "STORE_UNAVAILABLE",
    `the object store is full: notify the operator, who has to free space or enlarge it. Until then ${what}`,
    { cause, retryAfterMs, metadata: { cause: "store-full" } },
  );
}
