import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { open, readFile } from "node:fs/promises";
import type { AuditSigner, AuditVerifier } from "../../app/ports/audit-key.ts";

/** The file of an audit key cannot be used. */
export class AuditKeyError extends Error {
  override name = "AuditKeyError";
}

const BLOCK = /-----BEGIN (PRIVATE|PUBLIC) KEY-----[\s\S]*?-----END \1 KEY-----/g;

/** Ed25519 keys of PEM texts (RFC 8410). */
class PemKeys implements AuditVerifier {
  readonly #known = new Map<string, KeyObject>();

  add(key: KeyObject): string {
    const name = createHash("sha256")
      .update(key.export({ type: "spki", format: "der" }))
      .digest("hex");
    this.#known.set(name, key);
    return name;
  }

  verify(key: string, text: string, signature: string): boolean {
    const known = this.#known.get(key);
    return known !== undefined && verify(null, Buffer.from(text), known, Buffer.from(signature, "base64"));
  }
}

/**
 * Opens the audit key of a server: the first private key of the file signs. Others in it, private or public, are those
 * of earlier heads.
 * @throws AuditKeyError
 */
export async function openAuditKey(file: string): Promise<AuditSigner> {
  const { keys, signing } = await readKeys(file);
  if (signing === undefined)
    throw new AuditKeyError(`${file} has no private key; make one with \`strongroom audit keygen\``);
  const key = keys.add(createPublicKey(signing));
  return {
    key,
    sign: (text) => sign(null, Buffer.from(text), signing).toString("base64"),
    verify: (name, text, signature) => keys.verify(name, text, signature),
  };
}

/** Opens the public keys of a file, to verify heads. @throws AuditKeyError */
export async function openAuditPublicKeys(file: string): Promise<AuditVerifier> {
  return (await readKeys(file)).keys;
}

async function readKeys(file: string): Promise<{ keys: PemKeys; signing: KeyObject | undefined }> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new AuditKeyError(`the audit key ${file} cannot be read: ${error.code ?? error.message}`);
  });
  const keys = new PemKeys();
  let signing: KeyObject | undefined;
  let found = 0;
  for (const [pem, kind] of text.matchAll(BLOCK)) {
    let key: KeyObject;
    try {
      key = kind === "PRIVATE" ? createPrivateKey(pem) : createPublicKey(pem);
    } catch {
      throw new AuditKeyError(`${file} has a key that cannot be read; make one with \`strongroom audit keygen\``);
    }
    if (key.asymmetricKeyType !== "ed25519")
      throw new AuditKeyError(`${file}: expected Ed25519 keys, got ${key.asymmetricKeyType}`);
    if (kind === "PRIVATE") signing ??= key;
    keys.add(kind === "PRIVATE" ? createPublicKey(key) : key);
    found++;
  }
  if (found === 0) throw new AuditKeyError(`${file}: expected keys in PEM, got none`);
  return { keys, signing };
}

/**
 * Makes a key pair: the private key in `file`, for its owner only, and the public one beside it in `file.pub`.
 * @throws AuditKeyError when one of them is there
 */
export async function makeAuditKey(file: string): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  await writeNew(file, privateKey.export({ type: "pkcs8", format: "pem" }).toString(), 0o600);
  await writeNew(`${file}.pub`, publicKey.export({ type: "spki", format: "pem" }).toString(), 0o644);
}

async function writeNew(file: string, text: string, mode: number): Promise<void> {
  const handle = await open(file, "wx", mode).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "EEXIST" ? "it exists, and is not overwritten" : (error.code ?? error.message);
    throw new AuditKeyError(`${file} cannot be written: ${why}`);
  });
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
