import { asciiBytes } from "./ascii.ts";
import type { CiphertextFormat } from "./policy.ts";

/** What tells the armor of one format from that of the other. */
export interface ArmorLabel {
  /** The format inside. */
  readonly format: CiphertextFormat;
  /** The first line, without its end. */
  readonly begin: Uint8Array;
  /** The last line, without its end. */
  readonly end: Uint8Array;
  /** Most characters in a line of base64. */
  readonly columns: number;
  /**
   * Whether every line but the last must have exactly that many characters, and no white space may follow armor lines.
   */
  readonly strict: boolean;
}

/** OpenPGP armor, RFC 9580 section 6. */
export const PGP_LABEL: ArmorLabel = {
  format: "openpgp",
  begin: asciiBytes("-----BEGIN PGP MESSAGE-----"),
  end: asciiBytes("-----END PGP MESSAGE-----"),
  columns: 76,
  strict: false,
};

/** age armor, which is strict PEM: https://github.com/C2SP/C2SP/blob/main/age.md, "ASCII armor". */
export const AGE_LABEL: ArmorLabel = {
  format: "age",
  begin: asciiBytes("-----BEGIN AGE ENCRYPTED FILE-----"),
  end: asciiBytes("-----END AGE ENCRYPTED FILE-----"),
  columns: 64,
  strict: true,
};

/** Characters that the first lines of both share: `-----BEGIN `. */
export const SHARED_BEGIN = 11;
