/** Says whether a signature is of a known audit key. */
export interface AuditVerifier {
  /**
   * @param key name of the key, as a head says it.
   * @param signature in base64.
   * @returns false also for a key that is not known.
   */
  verify(key: string, text: string, signature: string): boolean;
}

/** Signs heads of the audit log. */
export interface AuditSigner extends AuditVerifier {
  /** Name of the key that signs. */
  readonly key: string;
  /** @returns the signature in base64. */
  sign(text: string): string;
}
