import { FramingError } from "./errors.ts";
import type { Recipients } from "./recipients.ts";

/**
 * A format of ciphertext: OpenPGP (RFC 9580, RFC 4880) or age v1 (https://age-encryption.org/v1). Each may be armored.
 */
export type CiphertextFormat = "openpgp" | "age";

/** What a collection accepts. */
export interface FramingPolicy {
  /** The formats that are accepted. */
  readonly formats: readonly CiphertextFormat[];
  /**
   * OpenPGP only. When given, every public-key session-key packet must name one of these keys; hidden recipients and
   * passphrases are refused. Lower-case hex: a 64-bit key id (16 digits) or a fingerprint (v4: 40 digits, v6: 64
   * digits), of which the key id counts. A message names the key it is encrypted to, which usually is a subkey: list
   * the encryption subkeys.
   */
  readonly recipientKeyIds?: readonly string[];
  /**
   * age only. When given, a header has only stanzas of these names (see `ageRecipient`), and each no more often than is
   * said here. A stanza of X25519 names no key, so that of those only the number can be held to.
   */
  readonly ageRecipients?: Recipients;
}

/** A policy, checked and made ready for look-ups. */
export class Acceptance {
  readonly #formats: ReadonlySet<CiphertextFormat>;
  /** Key ids of 16 lower-case hex digits, or undefined where any recipient is accepted. */
  readonly keyIds: ReadonlySet<string> | undefined;
  /** Names of age recipients and how often each may be there, or undefined where any is accepted. */
  readonly ageRecipients: ReadonlyMap<string, number> | undefined;

  /** @throws TypeError for a recipient that is neither a key id nor a fingerprint */
  constructor(policy: FramingPolicy) {
    this.#formats = new Set(policy.formats);
    this.keyIds = policy.recipientKeyIds === undefined ? undefined : new Set(policy.recipientKeyIds.map(keyIdOf));
    this.ageRecipients = policy.ageRecipients === undefined ? undefined : new Map(Object.entries(policy.ageRecipients));
  }

  /** @throws FramingError "format-not-accepted" unless the policy names the format */
  require(format: CiphertextFormat, offset: number): void {
    if (this.#formats.has(format)) return;
    const accepted = [...this.#formats].map((name) => NAMES[name]).join(" or ") || "nothing";
    throw new FramingError(
      "format-not-accepted",
      offset,
      `This collection accepts ${accepted}, and the stream is ${NAMES[format]}. Encrypt with the accepted ` +
        "format, or change " +
        "the collection's encryption policy.",
    );
  }
}

const NAMES: Record<CiphertextFormat, string> = { openpgp: "OpenPGP", age: "age" };

/**
 * The key id within a fingerprint: the last 8 octets of version 4, the first 8 of version 6 (RFC 9580 section 5.5.4)
 * and of LibrePGP's version 5, which is as long as version 6.
 */
function keyIdOf(recipient: string): string {
  if (/^[0-9a-f]+$/.test(recipient)) {
    if (recipient.length === 16) return recipient;
    if (recipient.length === 40) return recipient.slice(-16);
    if (recipient.length === 64) return recipient.slice(0, 16);
  }
  throw new TypeError(
    "expected recipientKeyIds to hold key ids (16 digits) or fingerprints (40 or 64 digits) in lower-case hex, " +
      `without blanks, got ${JSON.stringify(recipient)}`,
  );
}
