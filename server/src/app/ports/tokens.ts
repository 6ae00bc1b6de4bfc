/** Signs and checks tokens. */
export interface TokenSigner {
  /** Makes a token for a user that is valid until then. Every token differs. */
  sign(claims: { subject: string; issuedAt: Date; expiresAt: Date }): Promise<string>;
  /** Whether this installation signed the token and it has not expired. */
  verify(token: string, now: Date): Promise<boolean>;
}
