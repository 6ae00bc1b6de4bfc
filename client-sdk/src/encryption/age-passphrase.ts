/**
 * age files that open with a passphrase (`age -p`; https://age-encryption.org/v1, "The scrypt recipient type"), with
 * node:crypto: the library's scrypt stops everything else for seconds.
 */
import { createDecipheriv, scrypt } from "node:crypto";
import { promisify } from "node:util";
import type { Identity } from "age-encryption";
import { decryptionFailure } from "./options.ts";

const LABEL = "age-encryption.org/v1/scrypt";

/**
 * The most work that is done for a file; `age` does no more by itself either. 2^22 blocks of 1 KiB are 4 GiB of memory,
 * 2^20 are 1 GiB.
 */
const MOST_WORK = 20;

const TAG = 16;
const deriveKey = promisify<string, Uint8Array, number, object, Buffer>(scrypt);

/** What opens such a file. */
export function passphraseIdentity(passphrase: string): Identity {
  return {
    async unwrapFileKey(stanzas) {
      const [stanza] = stanzas;
      const [kind, salt = "", work = ""] = stanza?.args ?? [];
      if (stanza === undefined || kind !== "scrypt") return null;
      if (stanzas.length > 1)
        throw decryptionFailure("An age file with a passphrase may not have other recipients, and this one has.");
      const log = /^[1-9][0-9]?$/.test(work) ? Number(work) : Number.NaN;
      if (!(log <= MOST_WORK)) {
        throw decryptionFailure(
          `The age file asks for more work than is done here (${work}, at most ${MOST_WORK}); decrypt it by hand.`,
        );
      }
      const cost = 2 ** log;
      const salted = Buffer.concat([Buffer.from(LABEL), Buffer.from(salt, "base64")]);
      const key = await deriveKey(passphrase, salted, 32, {
        cost,
        blockSize: 8,
        parallelization: 1,
        maxmem: 1024 * cost + 2 ** 20,
      });
      const body = Buffer.from(stanza.body);
      const decipher = createDecipheriv("chacha20-poly1305", key, Buffer.alloc(12), { authTagLength: TAG });
      decipher.setAuthTag(body.subarray(body.length - TAG));
      const fileKey = decipher.update(body.subarray(0, body.length - TAG));
      try {
        decipher.final();
      } catch (cause) {
        throw decryptionFailure("The passphrase does not open the version.", cause);
      }
      return fileKey;
    },
  };
}
