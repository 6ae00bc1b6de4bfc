/**
 * Why a public key does not serve, and which program can use it: derived from the key itself, so that the answer is the
 * same whatever encrypts.
 */
import type { Key, SignaturePacket, Subkey } from "openpgp";
import { adviseGpg } from "./programs.ts";

/** Curves that the library does not have, by the names it gives them. */
const MISSING_CURVES = /^(brainpool|secp256k1)/i;

/**
 * Algorithms that only current programs know (RFC 9580 section 9.1: X25519, X448, Ed25519, Ed448), by the library's
 * names.
 */
const NEW_ALGORITHMS: ReadonlySet<string> = new Set(["x25519", "x448"]);

/** Bits of an RSA key below which the library does not encrypt to it. */
const RSA_BITS = 2047;

type Part = Key | Subkey;

/**
 * What is wrong with keys that a dump is to be encrypted to.
 *
 * @param forLibrary - whether the library encrypts, which does not take every key that gpg takes
 * @returns a sentence for each key that cannot be used, with a space after it; empty when all can
 */
export async function keyProblems(keys: readonly Key[], forLibrary: boolean): Promise<string> {
  const sentences: string[] = [];
  for (const key of keys) {
    const problem = (await unusable(key)) ?? (forLibrary ? foreignToLibrary(key) : undefined);
    if (problem !== undefined) sentences.push(`The key ${nameOf(key)} ${problem}. `);
  }
  return sentences.join("");
}

/**
 * Whether every gpg that is in use can encrypt to the keys: those of version 4 with the algorithms of RFC 4880 and
 * 6637.
 */
export function knownToGpg(keys: readonly Key[]): boolean {
  return keys.every(
    (key) =>
      key.keyPacket.version === 4 &&
      partsOf(key).some((part) => canEncrypt(part) && !NEW_ALGORITHMS.has(algorithmOf(part).algorithm)),
  );
}

/** Why the library cannot decrypt with a key, as a sentence; empty when it can. */
export function missingInLibrary(key: Key): string {
  const curve = missingCurve(key);
  return curve === undefined
    ? ""
    : `The key ${nameOf(key)} uses the curve ${curve}, which the library does not have; ${adviseGpg()}.`;
}

function missingCurve(key: Key): string | undefined {
  return partsOf(key)
    .map((part) => algorithmOf(part).curve)
    .find((curve) => curve !== undefined && MISSING_CURVES.test(curve));
}

async function unusable(key: Key): Promise<string | undefined> {
  if (key.revocationSignatures.length > 0) return "is revoked; encrypt to another one";
  const expired = expiredAt(await expiryOf(key));
  if (expired !== undefined) return `expired on ${expired}; renew it, or encrypt to another one`;
  const parts = partsOf(key).filter(canEncrypt);
  if (parts.length === 0) return "can only sign, since it has no part that encrypts; encrypt to another one";
  const reasons: string[] = [];
  for (const part of parts) {
    if (part.revocationSignatures.length > 0) reasons.push("is revoked");
    else {
      const ended = part === key ? undefined : expiredAt(await expiryOf(part));
      if (ended !== undefined) reasons.push(`expired on ${ended}`);
    }
  }
  if (reasons.length < parts.length) return undefined;
  return (
    `cannot encrypt: its part that encrypts ${[...new Set(reasons)].join(" or ")}; add a new one, or encrypt to ` +
    "another key"
  );
}

function foreignToLibrary(key: Key): string | undefined {
  const curve = missingCurve(key);
  if (curve !== undefined) return `uses the curve ${curve}, which the library does not have; ${adviseGpg()}`;
  for (const part of partsOf(key)) {
    const { algorithm, bits } = algorithmOf(part);
    if (algorithm === "dsa" || algorithm === "elgamal") {
      return (
        `is of the kind ${algorithm === "dsa" ? "DSA" : "Elgamal"}, to which the library does not encrypt; ` +
        adviseGpg()
      );
    }
    if (bits !== undefined && bits < RSA_BITS)
      return `is an RSA key of ${bits} bits, which is too short to be safe; make a new one`;
  }
  return undefined;
}

/** The primary key and its subkeys. */
function partsOf(key: Key): Part[] {
  return [key, ...key.getSubkeys()];
}

/**
 * Whether a part is for encryption, by the flags its owner gave it; without flags, by its algorithm (RFC 9580 section
 * 5.2.3.29).
 */
function canEncrypt(part: Part): boolean {
  // Keys of version 6 have their flags in a signature of the key itself.
  const signatures =
    "bindingSignatures" in part
      ? part.bindingSignatures
      : [
          ...(part as unknown as { directSignatures: SignaturePacket[] }).directSignatures,
          ...part.users.flatMap((user) => user.selfCertifications),
        ];
  const flags = signatures.findLast((signature) => signature.keyFlags !== null)?.keyFlags?.[0];
  if (flags !== undefined) return (flags & 0x0c) !== 0;
  return ["rsaEncryptSign", "rsaEncrypt", "elgamal", "ecdh", "x25519", "x448"].includes(algorithmOf(part).algorithm);
}

function algorithmOf(part: Part): { algorithm: string; curve?: string; bits?: number } {
  return part.getAlgorithmInfo() as { algorithm: string; curve?: string; bits?: number };
}

/** When a part ends; undefined when it does not, or when the library cannot check the signature that says so. */
async function expiryOf(part: Part): Promise<Date | undefined> {
  const expiry = await part.getExpirationTime().catch(() => null);
  return expiry instanceof Date ? expiry : undefined;
}

function expiredAt(expiry: Date | undefined): string | undefined {
  return expiry !== undefined && expiry.getTime() <= Date.now() ? expiry.toISOString().slice(0, 10) : undefined;
}

/** `0x85E36F42D68DFABA (Expired <a@example.org>)`. */
function nameOf(key: Key): string {
  const id = `0x${key.getKeyID().toHex().toUpperCase()}`;
  const [user] = key.getUserIDs();
  return user === undefined ? id : `${id} (${user})`;
}
