/**
 * What gpg says on its status channel (`--status-fd`; GnuPG's doc/DETAILS, "Format of the --status-fd output"). Its
 * exit status alone is not enough: gpg exits with 0 after it has decrypted nothing (`NODATA`).
 */
import type { Failure } from "./options.ts";

const PREFIX = "[GNUPG:] ";

/**
 * Lines that say that something is wrong with the message as a whole. Those about one key of several (`NO_SECKEY`,
 * `ERROR`) are not among them.
 */
const FAILURES: ReadonlyMap<string, string> = new Map([
  ["NODATA", "it found no encrypted data that it can read"],
  ["UNEXPECTED", "it met something unexpected in the data"],
  ["BADMDC", "the message was changed or cut short"],
  ["DECRYPTION_FAILED", "the decryption failed"],
  ["FAILURE", "it reported a failure"],
]);

/** Reasons of `INV_RECP`, by their numbers. */
const UNUSABLE_RECIPIENT: readonly string[] = [
  "it cannot be used",
  "it was not found",
  "its name fits several keys",
  "it cannot encrypt, only sign",
  "it is revoked",
  "it is expired",
];

/** The status lines of one run of gpg. */
export class GpgStatus {
  readonly #seen = new Set<string>();
  #rejected = "";

  /** Takes a line, without its end. */
  line(text: string): void {
    if (!text.startsWith(PREFIX)) return;
    const [keyword = "", reason = "", ...rest] = text.slice(PREFIX.length).split(" ");
    this.#seen.add(keyword);
    if (keyword === "INV_RECP" && this.#rejected === "") {
      const why = UNUSABLE_RECIPIENT[Number(reason)] ?? UNUSABLE_RECIPIENT[0];
      this.#rejected = `The recipient ${rest.join(" ")}: ${why}. `;
    }
  }

  /** What is wrong with a recipient, as a sentence and a space; empty when gpg said nothing. */
  get rejectedRecipient(): string {
    return this.#rejected;
  }

  /**
   * What may be behind a failure after gpg gave out data, as sentences and a space; empty for an earlier one. Padding
   * is encrypted with the rest, so nobody sees before that gpg will stumble over it: it reads over some bytes that
   * follow the end of compressed data, and takes more of them for packets. By default `sq` adds a quarter of a dump.
   */
  get lateFailure(): string {
    if (!this.#seen.has("PLAINTEXT")) return "";
    return (
      "gpg decrypted data, and found it wrong at its end: either the message was changed, or it has padding that gpg " +
      "cannot read, as `sq` adds it by default. Use the library (--program library), which tells the two apart. "
    );
  }

  /**
   * Checks that a message was decrypted as a whole and is authentic.
   * @throws what `failure` makes, unless gpg said DECRYPTION_OKAY and nothing to the contrary
   */
  requireDecrypted(failure: Failure): void {
    for (const [keyword, words] of FAILURES) {
      if (this.#seen.has(keyword))
        throw failure(`gpg ended with exit status 0, but its status says ${keyword}: ${words}.`);
    }
    if (!this.#seen.has("DECRYPTION_OKAY")) {
      throw failure(
        "gpg ended with exit status 0, but its status does not say DECRYPTION_OKAY: nothing was decrypted.",
      );
    }
  }

  /**
   * Checks that a message was encrypted to its end.
   * @throws what `failure` makes, unless gpg said END_ENCRYPTION
   */
  requireEncrypted(failure: Failure): void {
    if (!this.#seen.has("END_ENCRYPTION") || this.#seen.has("FAILURE")) {
      throw failure("gpg ended with exit status 0, but its status does not say that it encrypted to the end.");
    }
  }
}
