import type { Call } from "../../calls/call.ts";
import { maySeeAnyOf } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";

/**
 * The older server told apart collections that are not there and those that somebody may not see. Here only callers who
 * may see all of them learn that there is none (404); to others both are the same (403).
 * @param denied the words for somebody who may not
 * @returns undefined for errors about something else
 */
export function collectionWording(
  error: Error,
  call: Call,
  collection: string,
  denied: string,
): { readonly status: number; readonly error: string } | undefined {
  if (!(error instanceof DomainError)) return undefined;
  if (error.reason === "ACCESS_DENIED") return { status: 403, error: denied };
  if (error.reason !== "COLLECTION_NOT_FOUND") return undefined;
  const learnsNothing = call.principal !== undefined && maySeeAnyOf(call.principal, collection);
  return learnsNothing ? { status: 404, error: "cannot find specified collection" } : { status: 403, error: denied };
}
