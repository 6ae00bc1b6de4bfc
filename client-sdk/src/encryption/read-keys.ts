/** Reads the key files of OpenPGP. */
import { decryptKey, type Key, type PrivateKey, readKeys, readPrivateKeys } from "openpgp";
import { decryptionFailure } from "./options.ts";

/** The public keys in a file, armored or binary. */
export async function readPublicKeys(file: Uint8Array): Promise<Key[]> {
  return isArmored(file)
    ? readKeys({ armoredKeys: new TextDecoder().decode(file) })
    : readKeys({ binaryKeys: new Uint8Array(file) });
}

/**
 * The private keys in a file, armored or binary, ready to be used.
 * @throws DecryptionError when one is protected and no passphrase was given
 */
export async function readAndUnlock(file: Uint8Array, passphrase: string | undefined): Promise<PrivateKey[]> {
  const keys = await (isArmored(file)
    ? readPrivateKeys({ armoredKeys: new TextDecoder().decode(file) })
    : readPrivateKeys({ binaryKeys: new Uint8Array(file) }));
  return Promise.all(
    keys.map(async (privateKey) => {
      if (privateKey.isDecrypted()) return privateKey;
      if (passphrase === undefined) {
        throw decryptionFailure("The private key is protected with a passphrase, but none was given.");
      }
      return decryptKey({ privateKey, passphrase });
    }),
  );
}

/** The first octet of a binary packet has its highest bit set (RFC 9580 section 4.2), a letter or dash has not. */
function isArmored(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes[0]! < 0x80;
}
