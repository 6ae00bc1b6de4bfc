import type { KeyObject } from "node:crypto";
import type { importJWK } from "jose";

/** A key with the one algorithm that it is for; what a token says of its algorithm decides nothing. */
export interface VerifyingKey {
  readonly algorithm: "EdDSA" | "HS256";
  readonly key: Awaited<ReturnType<typeof importJWK>> | KeyObject;
}

/** Keys by their ids; one of them signs. */
export interface KeySet {
  readonly signing: VerifyingKey & { readonly id: string };
  /** Shared secrets have one id, and a token of it may be of any of them. */
  readonly verifying: ReadonlyMap<string, readonly VerifyingKey[]>;
}
