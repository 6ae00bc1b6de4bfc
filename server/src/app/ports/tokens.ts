import type { ObjectGrant } from "../../domain/configuration.ts";

/** Signs and checks tokens. */
export interface TokenSigner {
  /** Makes a token for a user that is valid until then. Every token differs. */
  sign(claims: { subject: string; issuedAt: Date; expiresAt: Date }): Promise<string>;
  /** Whether this installation signed the token and it has not expired. */
  verify(token: string, now: Date): Promise<boolean>;
  /**
   * What a token of Backup Repository says, if it is signed with that one's secret and has not expired; undefined for
   * every token where no such secret was given.
   */
  verifyOld?(token: string, now: Date): Promise<OldTokenClaims | undefined>;
  /**
   * Makes a key that signs from now on; tokens of the others stay valid.
   * @returns the id of the new key.
   * @throws DomainError KEY_ROTATION_REFUSED
   */
  rotate?(): Promise<string>;
}

/** What a token of Backup Repository says of its owner. */
export interface OldTokenClaims {
  readonly userName: string;
  /** Empty for none. */
  readonly accessKey: string;
  /** What it is narrowed to; empty for nothing. */
  readonly scope: readonly ObjectGrant[];
  readonly expiresAt: Date;
}
