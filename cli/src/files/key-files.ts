/** What a key file holds. */
export type KeyKind = "openpgp-public" | "openpgp-private" | "age-public" | "age-private" | "unknown";

/** Tells by its content what a key file holds. */
export function keyKind(bytes: Uint8Array): KeyKind {
  const first = bytes[0] ?? 0;
  // Binary OpenPGP: bit 7 marks a packet; its tag distinguishes public key (6) and secret key (5). RFC 9580, 4.2.
  if (first >= 0x80) {
    const tag = (first & 0x40) !== 0 ? first & 0x3f : (first >> 2) & 0x0f;
    return tag === 6 ? "openpgp-public" : tag === 5 ? "openpgp-private" : "unknown";
  }
  const text = asText(bytes);
  if (text.includes("-----BEGIN PGP PRIVATE KEY BLOCK-----")) return "openpgp-private";
  if (text.includes("-----BEGIN PGP PUBLIC KEY BLOCK-----")) return "openpgp-public";
  if (ageIdentities(bytes).length > 0 || isWholeIdentity(bytes)) return "age-private";
  return ageRecipients(bytes).length > 0 ? "age-public" : "unknown";
}

/** What age encrypts to: its own keys, and SSH public keys. */
const RECIPIENT = /^(age1[0-9a-z]+|ssh-(ed25519|rsa) [A-Za-z0-9+/]+=*( .*)?)$/;

/** Whether this is an age recipient: `age1...`, or an SSH public key. */
export function isAgeRecipient(text: string): boolean {
  return RECIPIENT.test(text);
}

/** The age recipients of a file, one a line. Comments (among them the `# public key:` of age-keygen) do not count. */
export function ageRecipients(bytes: Uint8Array): string[] {
  return lines(bytes).filter(isAgeRecipient);
}

/**
 * Number of the first line, from 1, that is neither empty nor a comment nor a recipient; undefined when there is none.
 */
export function foreignLine(bytes: Uint8Array): number | undefined {
  const at = lines(bytes).findIndex((line) => line !== "" && !line.startsWith("#") && !isAgeRecipient(line));
  return at < 0 ? undefined : at + 1;
}

/**
 * Whether a file as a whole is what age takes as an identity: an SSH private key, or identities protected by a
 * passphrase.
 */
export function isWholeIdentity(bytes: Uint8Array): boolean {
  return /^-----BEGIN (OPENSSH|RSA) PRIVATE KEY-----/.test(asText(bytes.subarray(0, 64))) || isProtectedIdentity(bytes);
}

/** Whether a file is an age file: as an identity it is protected by a passphrase. */
export function isProtectedIdentity(bytes: Uint8Array): boolean {
  return /^(age-encryption\.org\/v1\n|-----BEGIN AGE ENCRYPTED FILE-----)/.test(asText(bytes.subarray(0, 64)));
}

/** The age identities (private keys) of a file. */
export function ageIdentities(bytes: Uint8Array): string[] {
  return lines(bytes).filter((line) => /^AGE-(SECRET-KEY|PLUGIN)-/.test(line));
}

function lines(bytes: Uint8Array): string[] {
  return asText(bytes)
    .split("\n")
    .map((line) => line.trim());
}

function asText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
