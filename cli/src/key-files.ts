/** What a key file holds. */
export type KeyKind = "openpgp-public" | "openpgp-private" | "age-public" | "age-private" | "unknown";

/** Tells by its content what a key file holds. */
export function keyKind(bytes: Uint8Array): KeyKind {
  const first = bytes[0] ?? 0;
  // Binary OpenPGP: bit 7 marks a packet; its tag tells public key (6) from secret key (5). RFC 9580, 4.2.
  if (first >= 0x80) {
    const tag = (first & 0x40) !== 0 ? first & 0x3f : (first >> 2) & 0x0f;
    return tag === 6 ? "openpgp-public" : tag === 5 ? "openpgp-private" : "unknown";
  }
  const text = asText(bytes);
  if (text.includes("-----BEGIN PGP PRIVATE KEY BLOCK-----")) return "openpgp-private";
  if (text.includes("-----BEGIN PGP PUBLIC KEY BLOCK-----")) return "openpgp-public";
  if (ageIdentities(bytes).length > 0) return "age-private";
  return ageRecipients(bytes).length > 0 ? "age-public" : "unknown";
}

/** The age recipients of a file: lines that begin with `age1`. Comments (among them the `# public key:` of age-keygen) do not count. */
export function ageRecipients(bytes: Uint8Array): string[] {
  return lines(bytes).filter((line) => /^age1[0-9a-z]+$/.test(line));
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
