/** Which messages an installed gpg can open, recognized by their packets. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { OpenPgpMessage, SessionKeyPacket } from "./openpgp-message.ts";
import { PACKET } from "./packets.ts";

/** Public-key algorithms (RFC 9580 section 9.1) of every gpg that is in use: RSA, Elgamal, ECDH. */
const OLD_ALGORITHMS: ReadonlySet<number> = new Set([1, 2, 16, 18]);

/**
 * Ways from a passphrase to a key (RFC 9580 section 3.7.1) that gpg knows: simple, salted, iterated. Argon2 (4) it does
 * not.
 */
const OLD_S2K: ReadonlySet<number> = new Set([0, 1, 3]);

/**
 * LibrePGP's packets (20, and passphrase packets of version 5) are read from 2.3 on; its post-quantum keys (algorithm
 * 8) from 2.5.
 */
const LIBREPGP = [2, 3] as const;
const POST_QUANTUM = [2, 5] as const;

/**
 * What keeps gpg from opening a message.
 *
 * @param gpg - full path of the program
 * @returns reasons, to be appended to "gpg cannot open it:"; none when nothing does
 */
export async function gpgObstacles(message: OpenPgpMessage, gpg: string): Promise<string[]> {
  const { data, keys } = message;
  const found: string[] = [];
  const since = async (wanted: readonly [number, number], what: string): Promise<void> => {
    const version = await gpgVersion(gpg);
    if (version[0] < wanted[0] || (version[0] === wanted[0] && version[1] < wanted[1])) {
      found.push(
        `${what} need${what.endsWith("s") ? "" : "s"} gpg ${wanted.join(".")}, and ${version.join(".")} is installed`,
      );
    }
  };
  if (data.type === PACKET.protectedData && data.version !== 1) {
    found.push(
      `its data is encrypted as RFC 9580 has it (packet 18, version ${data.version}), which gpg does not know`,
    );
  }
  if (data.type === PACKET.aeadData) await since(LIBREPGP, "data with AEAD (packet 20)");
  for (const key of keys) {
    const words = describe(key);
    if (words === undefined) continue;
    if (key.kind === "key" && key.version === 3 && key.algorithm === 8) await since(POST_QUANTUM, words);
    else if (key.kind === "passphrase" && key.version === 5 && OLD_S2K.has(key.algorithm)) await since(LIBREPGP, words);
    else found.push(`gpg does not know ${words}`);
  }
  return [...new Set(found)];
}

/** What a session-key packet is, where not every gpg knows it. */
function describe({ kind, version, algorithm }: SessionKeyPacket): string | undefined {
  if (kind === "key") {
    if (version !== 3) return `session keys of version ${version} (of RFC 9580)`;
    return OLD_ALGORITHMS.has(algorithm) ? undefined : `public-key algorithm ${algorithm}`;
  }
  if (version === 4 && OLD_S2K.has(algorithm)) return undefined;
  return algorithm === 4 ? "passphrases with Argon2" : `passphrase packets of version ${version}`;
}

/** The first two numbers of the version that a gpg says it is; 0.0 where it says none. */
async function gpgVersion(gpg: string): Promise<[major: number, minor: number]> {
  const { stdout } = await promisify(execFile)(gpg, ["--version"]).catch(() => ({ stdout: "" }));
  const [, major = "0", minor = "0"] = /(\d+)\.(\d+)\./.exec(stdout.split("\n")[0] ?? "") ?? [];
  return [Number(major), Number(minor)];
}
