import { ValueError } from "@strongroom/protocol/sizes";
import type { Config, PublicKey, Subkey } from "openpgp";

const EXPECTED =
  "expected an armored OpenPGP public key (-----BEGIN PGP PUBLIC KEY BLOCK-----, from `gpg --armor --export`)";

/** Curves that the library does not have, so that it cannot check what a key says of itself. gpg can. */
const MISSING_CURVES = /^(brainpool|secp256k1)/i;

/** What a client encrypts to is its owner's choice: DSA, Elgamal and short keys are not refused here. */
const LENIENT = { rejectPublicKeyAlgorithms: new Set<never>(), rejectCurves: new Set<never>(), minRSABits: 0 };

/** Why no part of a key can encrypt. */
function whyUnusable(key: PublicKey): string {
  const parts: (PublicKey | Subkey)[] = [key, ...key.getSubkeys()];
  const curve = parts
    .map((part) => (part.getAlgorithmInfo() as { curve?: string }).curve)
    .find((name) => name !== undefined && MISSING_CURVES.test(name));
  if (curve !== undefined) return `it uses the curve ${curve}, which cannot be checked here; use another key`;
  if (key.revocationSignatures.length > 0) return "it is revoked";
  if (parts.some((part) => part !== key && part.revocationSignatures.length > 0))
    return "its part that encrypts is revoked";
  return "it can only sign";
}

/**
 * Ids of the key's parts that may encrypt, by their flags. Expiry does not count: a dump made before it stays as good
 * as it was.
 */
async function encryptionKeyIds(key: PublicKey, config: Config): Promise<string[]> {
  const ids: string[] = [];
  for (const part of key.getKeys()) {
    // With null for the date the library leaves expiry out, but refuses revoked keys and those without the flag or a
    // valid binding.
    const usable = await key.getEncryptionKey(part.getKeyID(), null, undefined, config).catch(() => undefined);
    if (usable) ids.push(usable.getKeyID().toHex());
  }
  return ids;
}

/**
 * Reads whole armored public keys, one or several in a text.
 * @returns the ids (16 lower-case hexadecimal digits) of all primary keys and subkeys that can encrypt.
 * @throws {ValueError} for anything else, above all for a private key.
 */
export async function parseRecipient(armored: string): Promise<string[]> {
  if (/PGP PRIVATE KEY/.test(armored)) {
    throw new ValueError(
      `${EXPECTED}, got a private key; the server must never have it: take it out, and export the public key instead`,
    );
  }
  // A block may hold several keys, and a text several blocks, of which the library would read the first only.
  const blocks = armored.match(/-----BEGIN PGP PUBLIC KEY BLOCK-----[\s\S]*?-----END PGP PUBLIC KEY BLOCK-----/g);
  if (!blocks) throw new ValueError(`${EXPECTED}, got something else`);
  // Loaded only here, since few configurations pin recipients and the library is large.
  const { config, readKeys } = await import("openpgp");
  const read = blocks.map((block) => readKeys({ armoredKeys: block }));
  const keys = await Promise.all(read).catch((error: unknown) => {
    const detail = error instanceof Error ? error.message : "unknown error";
    throw new ValueError(`${EXPECTED}, got one that cannot be read: ${detail}`, { cause: error });
  });
  const ids: string[] = [];
  for (const key of keys.flat()) {
    if (key.isPrivate()) {
      throw new ValueError(`${EXPECTED}, got a private key; the server must never have it: take it out`);
    }
    const own = await encryptionKeyIds(key, { ...config, ...LENIENT });
    if (own.length === 0) {
      const id = key.getKeyID().toHex();
      throw new ValueError(`expected a key that can encrypt, got ${id}: ${whyUnusable(key)}`);
    }
    ids.push(...own);
  }
  return [...new Set(ids)];
}
