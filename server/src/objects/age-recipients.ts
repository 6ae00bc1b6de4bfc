import { createHash } from "node:crypto";
import { ValueError } from "@strongroom/protocol/sizes";

const EXPECTED = "expected age recipients (age1..., or SSH public keys), one a line";

/** An own key of age, of 32 bytes in Bech32; and one that is safe from quantum computers, which is longer. */
const X25519 = /^age1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{58}$/;
const HYBRID = /^age1pq1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]+$/;
const SSH = /^(ssh-ed25519|ssh-rsa) ([A-Za-z0-9+/]+={0,2})(?: .*)?$/;

/** Whether a text of `recipients` speaks of age, rightly or not. */
export function isAge(text: string): boolean {
  return /^\s*(#|age1|ssh-|AGE-)/m.test(text) && !/-----BEGIN PGP/.test(text);
}

/**
 * The age recipients of a text, one a line; comments and empty lines do not count.
 * @throws {ValueError} for anything else, above all for a private key.
 */
export function ageLines(text: string): string[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const found = lines.filter((line) => line !== "" && !line.startsWith("#"));
  for (const line of found) {
    if (/^AGE-(SECRET-KEY|PLUGIN)/.test(line))
      throw new ValueError(`${EXPECTED}, got a private key; the server must never have it: take it out`);
    if (sshTag(line) !== undefined) continue;
    if (X25519.test(line) || HYBRID.test(line)) {
      if (hasChecksum(line)) continue;
      throw new ValueError(
        `${EXPECTED}, got one whose checksum is wrong; compare it with the original, it is mistyped`,
      );
    }
    const plugin = /^age1([a-z0-9-]+)1/.exec(line)?.[1];
    throw new ValueError(
      plugin === undefined || X25519.test(line)
        ? `${EXPECTED}, got something else`
        : `${EXPECTED}, got one of the plugin ${plugin}, whose keys a file does not name; leave recipients out`,
    );
  }
  if (found.length === 0) throw new ValueError(`${EXPECTED}, got none`);
  // An SSH key is the same key whatever its comment says.
  return found.map((line) => line.split(" ").slice(0, 2).join(" "));
}

const BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];

/** Whether the last six characters of a Bech32 text (BIP 173) are the checksum of what is before them. */
function hasChecksum(text: string): boolean {
  const end = text.lastIndexOf("1");
  const prefix = [...text.slice(0, end)].map((character) => character.charCodeAt(0));
  const data = [...text.slice(end + 1)].map((character) => BECH32.indexOf(character));
  let sum = 1;
  for (const value of [...prefix.map((code) => code >> 5), 0, ...prefix.map((code) => code & 31), ...data]) {
    const top = sum >>> 25;
    sum = ((sum & 0x1ffffff) << 5) ^ value;
    for (const [bit, term] of GENERATOR.entries()) if (((top >> bit) & 1) === 1) sum ^= term;
  }
  return sum === 1;
}

/**
 * What a file to these recipients may have in its header: the names of recipients, and how often each. Keys of age's
 * own are not named there, so of these only the number counts.
 */
export function ageNames(recipients: Iterable<string>): Record<string, number> {
  const names: Record<string, number> = {};
  for (const recipient of recipients) {
    const tag = sshTag(recipient);
    const name = tag ?? (HYBRID.test(recipient) ? "age:mlkem768x25519" : "age:X25519");
    names[name] = (names[name] ?? 0) + 1;
  }
  return names;
}

/** `age:ssh-ed25519:d6F3Wg`: the type, and the first four bytes of the SHA-256 of the key; undefined for no SSH key. */
function sshTag(line: string): string | undefined {
  const [, type, encoded] = SSH.exec(line) ?? [];
  if (type === undefined || encoded === undefined) return undefined;
  const key = Buffer.from(encoded, "base64");
  // The key says its type itself, after the length of that.
  if (key.subarray(4, 4 + type.length).toString("latin1") !== type) return undefined;
  const tag = createHash("sha256").update(key).digest().subarray(0, 4).toString("base64").replaceAll("=", "");
  return `age:${type}:${tag}`;
}
