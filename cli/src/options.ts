import { choice, flag, list, type Option, option, type Secret } from "@strongroom/command-line/option";
import { PASSWORD, SHARED } from "@strongroom/command-line/shared-options";
import { shown } from "@strongroom/command-line/shown";
import { parseDuration, parseSize } from "@strongroom/protocol/sizes";

/**
 * Every option of every client command, declared once; arguments, variables, help and docs/options.md follow from this
 * table.
 */
export const OPTIONS = {
  ...SHARED,
  url: list({
    name: "url",
    value: "url",
    help: "address of the server, several of one installation repeated or with commas",
    defaultText: "that of the last login, else http://127.0.0.1:8080",
    alias: "BM_URL",
  }),
  tokenFile: option({
    name: "token-file",
    value: "file",
    help:
      "file with the session token: login writes it (mode 0600) instead of keeping the session, other commands " +
      "read it before each call, so that it can be rotated",
  }),
  tlsCa: option({
    name: "tls-ca",
    value: "file",
    help: "trust the authorities in this PEM file, and no others, for https addresses",
  }),
  // The server has options of these names, and its variables mean its own certificate.
  tlsCert: option({
    name: "tls-cert",
    value: "file",
    variable: "STRONGROOM_TLS_CLIENT_CERT",
    help: "certificate of this client, PEM, for servers that ask for one",
  }),
  tlsKey: option({
    name: "tls-key",
    value: "file",
    variable: "STRONGROOM_TLS_CLIENT_KEY",
    help: "private key of --tls-cert, PEM, not encrypted",
  }),

  username: option({ name: "username", value: "name", help: "user, or user$key for an access key" }),
  description: option({
    name: "description",
    value: "text",
    help: "what the session is for, shown by `strongroom sessions`",
  }),
  lifetime: option({
    name: "lifetime",
    value: "duration",
    help: "how long the session lasts, such as 90d; not renewed, and never longer than the server allows",
    defaultText: "what the server gives",
    read: parseTimeLimit,
  }),
  scope: list({
    name: "scope",
    value: "collection=roles",
    help: "narrow the session to these collections, with roles divided by commas: pg-main=backupUploader",
  }),
  user: option({
    name: "user",
    value: "name",
    help: "sessions of another user, or user$key for those of one access key (others need systemAdmin)",
  }),
  allUsers: flag({ name: "all", help: "sessions of all users (needs systemAdmin)" }),
  revokeAll: flag({
    name: "revoke-all",
    help: "end all sessions, one's own among them; with --user those of that user",
    argumentsOnly: true,
  }),
  revoke: option({
    name: "revoke",
    value: "id",
    help: "end the session with this id, or with the only id that begins so",
    argumentsOnly: true,
  }),

  // Two options, so that a variable that was set for the one never runs the other.
  dumpCommand: option({
    name: "command",
    short: "c",
    value: "command",
    help:
      "command that writes the dump to its standard output, run with bash -e -o pipefail; without it, standard " +
      "input is read",
    alias: "BM_CMD",
  }),
  restoreCommand: option({
    name: "command",
    short: "c",
    value: "command",
    variable: "STRONGROOM_RESTORE_COMMAND",
    help: "command that reads the dump on its standard input, run with bash -e -o pipefail",
  }),
  publicKey: list({
    name: "public-key",
    value: "file",
    help: "encrypt to the key in this file: OpenPGP public key, or age recipient",
    alias: "BM_PUBLIC_KEY_PATH",
  }),
  recipient: list({
    name: "recipient",
    value: "recipient",
    help: "encrypt to a key of your gpg keyring, or to age1...",
    alias: "BM_RECIPIENT",
  }),
  recipientsFile: list({
    name: "recipients-file",
    value: "file",
    help: "encrypt to the age recipients in this file, one a line",
  }),
  passphraseFile: option({
    name: "passphrase-file",
    value: "file",
    help: "file with a passphrase: of the private key, or of the dump itself",
  }),
  encryption: choice({
    name: "encryption",
    value: "kind",
    help: "kind of encryption; auto goes by the keys, none means that the input is ciphertext already",
    words: ["auto", "openpgp", "age", "none"],
  }),
  program: choice({
    name: "program",
    value: "program",
    help:
      "program that encrypts and decrypts; auto takes an installed gpg or age, unless only the library knows the " +
      "keys or the message",
    words: ["auto", "gpg", "age", "library"],
  }),
  compress: choice({
    name: "compress",
    value: "how",
    help: "compress before encryption; auto does where it pays",
    words: ["auto", "zstd", "none"],
  }),
  filename: option({
    name: "filename",
    value: "name",
    help: "file name of the version; without it the collection's template decides",
  }),
  label: list({ name: "label", value: "key=value", help: "label of the version" }),
  okExit: option({
    name: "ok-exit",
    value: "codes",
    default: "0",
    help: "exit codes of the command that make a version, such as 0,1 for tar; all but 0 mark it with a warning",
    read: parseExitCodes,
  }),
  minSize: option({
    name: "min-size",
    value: "size",
    help: "refuse a dump with fewer bytes than this, such as 10M; an empty one is always refused",
    read: parseMinSize,
  }),
  expectSize: option({
    name: "expect-size",
    value: "bytes",
    help: "refuse a dump that does not have exactly this many bytes",
    read: parseSize,
  }),
  expectSha256: option({
    name: "expect-sha256",
    value: "digest",
    help: "refuse a dump that does not have this SHA-256, in hexadecimal",
    read: parseSha256,
  }),
  trustEnd: flag({
    name: "trust-end",
    help:
      "with --encryption none from standard input: take a binary age file without --expect-size or " +
      "--expect-sha256, though it looks whole wherever it is cut",
  }),
  parallel: option({
    name: "parallel",
    value: "count",
    help: "segments sent at once, 1 to 16",
    defaultText: "2",
    read: parseParallel,
  }),
  memory: option({
    name: "memory",
    value: "size",
    help: "memory for segments until they are acknowledged; two segments at least",
    defaultText: "64M",
    read: parseLimit,
  }),
  spool: option({
    name: "spool",
    value: "size",
    help: "temporary file for segments that do not fit into memory, so that the dump goes on while the server is away",
    defaultText: "0, the dump waits",
    read: parseLimit,
  }),
  spoolDir: option({
    name: "spool-dir",
    value: "folder",
    help: "folder of that file, instead of the system's (TMPDIR)",
  }),
  timeout: option({
    name: "timeout",
    value: "duration",
    help: "give up when not finished by then: 90s, 30m, 2h; a bare number in BM_TIMEOUT is seconds",
    alias: { name: "BM_TIMEOUT", translate: (value) => (/^\d+$/.test(value) ? `${value}s` : value) },
    read: parseTimeLimit,
  }),
  retryFor: option({
    name: "retry-for",
    value: "duration",
    help: "how long to wait for a server that is away, from the first attempt to connect on",
    defaultText: "15m",
    read: parseTimeLimit,
  }),
  wait: option({
    name: "wait",
    value: "duration",
    help: "how long to wait for a collection that other backups hold, or for its upload window",
    defaultText: "0, that is an error at once",
    read: parseTimeLimit,
  }),

  version: option({
    name: "version",
    value: "number",
    help: "version to fetch: a number, v7, or latest",
    defaultText: "latest",
    alias: "BM_VERSION",
    read: parseVersion,
  }),
  privateKey: list({
    name: "private-key",
    value: "file",
    help: "decrypt with the key in this file: OpenPGP private key, or age identity",
    alias: "BM_PRIVATE_KEY_PATH",
  }),
  identity: list({ name: "identity", value: "file", help: "decrypt with the age identities in this file" }),
  output: option({
    name: "output",
    value: "file",
    help: "write to this file; - is standard output",
    defaultText: "standard output for restore, the version's own file name in this folder for download",
  }),
  force: flag({ name: "force", help: "overwrite the output file", argumentsOnly: true }),
  removed: flag({ name: "removed", help: "list the removed versions that can be brought back, and until when" }),
  close: option({
    name: "close",
    value: "organization",
    help: "make this organization read-only; needs --reason",
    argumentsOnly: true,
  }),
  open: option({
    name: "open",
    value: "organization",
    help: "let this organization take uploads again",
    argumentsOnly: true,
  }),
  confirmPurge: option({
    name: "confirm",
    value: "versions/bytes",
    help: "how many versions there are and their bytes, such as 31/8808038400",
    argumentsOnly: true,
  }),
  organization: option({
    name: "organization",
    value: "name",
    help: "collections of this organization only",
  }),
  fromDay: option({
    name: "from",
    value: "day",
    variable: "STRONGROOM_USAGE_FROM",
    help: "the first day, such as 2026-01-31",
  }),
  toDay: option({
    name: "to",
    value: "day",
    variable: "STRONGROOM_USAGE_TO",
    help: "the last day, such as 2026-01-31",
  }),
  reason: option({ name: "reason", value: "text", help: "why the version is held, or the organization closed" }),
  lost: list({ name: "lost", value: "key", help: "show which versions would be lost with this key; may be repeated" }),
  yes: flag({ name: "yes", help: "do not ask", argumentsOnly: true }),

  abort: option({
    name: "abort",
    value: "id",
    help: "give up the upload with this id, or with the only id that begins so",
    argumentsOnly: true,
  }),

  secretFile: option({
    name: "secret-file",
    value: "file",
    help: "file with the collection's health secret, instead of a session",
  }),
  failOn: choice({
    name: "fail-on",
    value: "status",
    help: "mildest status that makes the exit code 8",
    words: ["failed", "warning"],
  }),

  ofServer: flag({
    name: "server",
    help: "the server itself in place of collections (needs systemAdmin)",
  }),
  healthIs: choice({
    name: "health",
    value: "status",
    help: "only collections whose health is this; not-ok means failed and warning",
    words: ["any", "failed", "warning", "ok", "not-ok"],
  }),
  prefix: option({ name: "prefix", value: "text", help: "only collections whose names begin with this" }),
  everyCollection: flag({ name: "all", variable: "STRONGROOM_HEALTH_ALL", help: "every collection that you may see" }),

  type: choice({ name: "type", value: "type", help: "kind of key", words: ["openpgp", "age"] }),
  name: option({ name: "name", value: "name", help: "name in the key, and of the files" }),
  email: option({ name: "email", value: "address", help: "e-mail address in the key" }),
  out: option({
    name: "out",
    value: "path",
    help: "path of the files without their endings, instead of --out-dir and --name",
  }),
  outDir: option({ name: "out-dir", value: "folder", help: "folder for the files", default: "." }),
} as const satisfies Record<string, Option<unknown>>;

/**
 * Secrets: from the environment or files only, never from arguments. All are removed from the environment of child
 * processes.
 */
export const SECRETS = {
  token: {
    env: "STRONGROOM_TOKEN",
    alias: "BM_AUTH_TOKEN",
    help: "session token, instead of the one kept by login",
  },
  password: PASSWORD,
  passphrase: {
    env: "STRONGROOM_PASSPHRASE",
    alias: "BM_PASSPHRASE",
    help: "passphrase of the private key, or of the dump itself; backup encrypts with it only where there are no keys",
  },
  healthSecret: {
    env: "STRONGROOM_HEALTH_SECRET",
    help: "health secret of the collection, instead of a session",
  },
} as const satisfies Record<string, Secret>;

/** How to reach a server. */
export const SERVER_OPTIONS = [OPTIONS.url, OPTIONS.tlsCa, OPTIONS.tlsCert, OPTIONS.tlsKey] as const;

/** What every command that talks to a server takes. */
export const CONNECTION_OPTIONS = [
  ...SERVER_OPTIONS,
  OPTIONS.username,
  OPTIONS.passwordFile,
  OPTIONS.tokenFile,
] as const;

/** The secrets of every command that has a session. */
export const SESSION_SECRETS = [SECRETS.token, SECRETS.password] as const;

/** What the program and every client command take. */
export const OUTPUT_OPTIONS = [OPTIONS.json, OPTIONS.quiet] as const;

function parseMinSize(given: string): bigint {
  const size = parseSize(given);
  return size < 1n ? 1n : size;
}

function parseLimit(given: string): number {
  const size = parseSize(given);
  if (size > BigInt(Number.MAX_SAFE_INTEGER))
    throw new RangeError(`expected a size of at most 8P, got ${shown(given)}`);
  return Number(size);
}

function parseTimeLimit(given: string): number {
  const ms = parseDuration(given);
  if (ms === 0) throw new RangeError(`expected a duration above 0, got ${shown(given)}`);
  return ms;
}

function parseSha256(given: string): Uint8Array {
  if (!/^[0-9a-f]{64}$/i.test(given)) throw new RangeError(`expected 64 hexadecimal digits, got ${shown(given)}`);
  return Buffer.from(given, "hex");
}

function parseParallel(given: string): number {
  const count = /^\d{1,2}$/.test(given) ? Number(given) : 0;
  if (count < 1 || count > 16) throw new RangeError(`expected a number from 1 to 16, got ${shown(given)}`);
  return count;
}

/**
 * Reads `latest`, `7` or `v7`.
 * @returns the number, or `newest`.
 * @throws {RangeError} for anything else.
 */
export function parseVersion(given: string): bigint | "newest" {
  if (given === "latest") return "newest";
  const number = /^v?(\d{1,18})$/.exec(given)?.[1];
  if (number === undefined || BigInt(number) === 0n)
    throw new RangeError(`expected a version number such as 7 or v7, or latest; got ${shown(given)}`);
  return BigInt(number);
}

function parseExitCodes(text: string): readonly number[] {
  const codes = text.split(",").map((code) => code.trim());
  if (!codes.every((code) => /^\d{1,3}$/.test(code) && Number(code) <= 125))
    throw new RangeError(`expected exit codes from 0 to 125, divided by commas, got ${shown(text)}`);
  return codes.map(Number);
}
