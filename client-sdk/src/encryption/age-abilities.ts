/** Which age files and keys an installed `age` can use, and which the library. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** From this version on `age` knows post-quantum keys and hardware tags. */
const POST_QUANTUM = [1, 3] as const;

/** Stanzas that every `age` in use opens, or its plugins and SSH keys; the others are of {@link POST_QUANTUM}. */
const NEW_STANZAS: ReadonlySet<string> = new Set(["mlkem768x25519"]);

const NEW_RECIPIENT = /^age1(pq|tag|tagpq)1/;
const NEW_IDENTITY = /^AGE-SECRET-KEY-PQ-1/i;

/** Recipients that the library knows: X25519 keys, and those of {@link POST_QUANTUM}. Plugins have longer names. */
const LIBRARY_RECIPIENT = /^age1((pq|tag|tagpq)1)?[02-9ac-hj-np-z]+$/;
const LIBRARY_IDENTITY = /^AGE-SECRET-KEY-(PQ-)?1/i;

/** The kinds of recipients in the header of an age file: `X25519`, `scrypt`, `ssh-ed25519`, ... */
export function stanzaKinds(header: Uint8Array): string[] {
  const text = Buffer.from(header.buffer, header.byteOffset, header.length).toString("latin1");
  return [...text.matchAll(/^-> (\S+)/gm)].map(([, kind]) => kind!);
}

/**
 * Whether the library encrypts to the recipients and the installed `age` does not.
 * @param recipients - lines without comments
 */
export async function onlyLibraryEncrypts(age: string, recipients: readonly string[]): Promise<boolean> {
  if (!recipients.some((line) => NEW_RECIPIENT.test(line))) return false;
  return recipients.every((line) => LIBRARY_RECIPIENT.test(line)) && !(await knowsPostQuantum(age));
}

/**
 * Whether the library can decrypt a file with the identities and the installed `age` cannot.
 * @param identities - lines without comments; files that are opened as a whole count as a line
 */
export async function onlyLibraryDecrypts(
  age: string,
  kinds: readonly string[],
  identities: readonly string[],
): Promise<boolean> {
  if (!kinds.some((kind) => NEW_STANZAS.has(kind)) && !identities.some((line) => NEW_IDENTITY.test(line))) return false;
  return identities.every((line) => LIBRARY_IDENTITY.test(line)) && !(await knowsPostQuantum(age));
}

/** A program that does not say its version is taken for an old one: the library does as well. */
async function knowsPostQuantum(age: string): Promise<boolean> {
  const { stdout } = await promisify(execFile)(age, ["--version"]).catch(() => ({ stdout: "" }));
  const [, major = "0", minor = "0"] = /(\d+)\.(\d+)\./.exec(stdout) ?? [];
  return Number(major) > POST_QUANTUM[0] || (Number(major) === POST_QUANTUM[0] && Number(minor) >= POST_QUANTUM[1]);
}
