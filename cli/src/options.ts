import { choice, flag, list, parsed, type SecretSpec, text } from "./option-spec.ts";
import { parseDuration, parseSize } from "./terminal/format.ts";

/** Every option of every command, declared once. `STRONGROOM_*` names and `--help` follow from this table. */
export const OPTIONS = {
  url: list(
    "--url <url>",
    "address of the server, several of one installation repeated or with commas; without it that of the last login, else http://127.0.0.1:8080",
    { alias: "BM_URL" },
  ),
  json: flag("--json", "print one JSON object instead of text"),
  quiet: flag("--quiet", "no progress and no remarks, errors only"),
  tokenFile: text(
    "--token-file <file>",
    "file with the session token, read again before each call, so that it can be rotated",
  ),
  tlsCa: text("--tls-ca <file>", "trust the authorities in this PEM file, and no others, for https addresses"),
  tlsCert: text("--tls-cert <file>", "certificate of this client, PEM, for servers that ask for one"),
  tlsKey: text("--tls-key <file>", "private key of --tls-cert, PEM, not encrypted"),

  username: text("--username <name>", "user, or user$key for an access key"),
  passwordFile: text("--password-file <file>", "file with the password"),
  passwordStdin: flag("--password-stdin", "read the password from standard input"),
  description: text("--description <text>", "what the session is for, shown by `strongroom sessions`"),
  user: text("--user <name>", "sessions of another user (needs systemAdmin)"),
  revoke: text("--revoke <id>", "end the session with this id, or with the only id that begins so"),

  collection: text("--collection <name>", "name of the collection, instead of the argument", {
    alias: "BM_COLLECTION_ID",
  }),
  command: text("-c, --command <command>", "command, run with bash -e -o pipefail", { alias: "BM_CMD" }),
  publicKey: list("--public-key <file>", "encrypt to the key in this file: OpenPGP public key, or age recipient", {
    alias: "BM_PUBLIC_KEY_PATH",
  }),
  recipient: list("--recipient <recipient>", "encrypt to a key of your gpg keyring, or to age1...", {
    alias: "BM_RECIPIENT",
  }),
  recipientsFile: list("--recipients-file <file>", "encrypt to the age recipients in this file, one a line"),
  passphraseFile: text(
    "--passphrase-file <file>",
    "file with a passphrase to encrypt with, instead of keys or besides them",
  ),
  encryption: choice(
    "--encryption <kind>",
    "kind of encryption; auto goes by the keys, none means that the input is ciphertext already",
    ["auto", "openpgp", "age", "none"],
  ),
  program: choice(
    "--program <program>",
    "program that encrypts and decrypts; auto takes an installed gpg or age, unless only the library knows the keys or the message",
    ["auto", "gpg", "age", "library"],
  ),
  compress: choice("--compress <how>", "compress before encryption; auto does where it pays", ["auto", "zstd", "none"]),
  filename: text("--filename <name>", "file name of the version; without it the collection's template decides"),
  label: list("--label <key=value>", "label of the version"),
  minSize: parsed(
    "--min-size <size>",
    "refuse a dump with fewer bytes than this, such as 10M; an empty one is always refused",
    parseMinSize,
  ),
  expectSize: parsed("--expect-size <bytes>", "refuse a dump that does not have exactly this many bytes", parseSize),
  expectSha256: parsed(
    "--expect-sha256 <digest>",
    "refuse a dump that does not have this SHA-256, in hexadecimal",
    parseSha256,
  ),
  trustEnd: flag(
    "--trust-end",
    "with --encryption none from standard input: take a binary age file without --expect-size or --expect-sha256, though it looks whole wherever it is cut",
  ),
  parallel: parsed("--parallel <count>", "segments sent at once, 1 to 16 (default: 2)", parseParallel),
  memory: parsed(
    "--memory <size>",
    "memory for segments until they are acknowledged; two segments at least (default: 64M)",
    parseLimit,
  ),
  spool: parsed(
    "--spool <size>",
    "temporary file for segments that do not fit into memory, so that the dump goes on while the server is away (default: 0, the dump waits)",
    parseLimit,
  ),
  spoolDir: text("--spool-dir <folder>", "folder of that file, instead of the system's (TMPDIR)"),
  timeout: parsed(
    "--timeout <duration>",
    "give up when not finished by then: 90s, 30m, 2h; a number is seconds",
    parseDuration,
    { alias: "BM_TIMEOUT" },
  ),
  retryFor: parsed(
    "--retry-for <duration>",
    "how long a broken connection is tried again (default: 15m)",
    parseDuration,
  ),

  version: parsed("--version <number>", "version to fetch: a number, v7, or latest", parseVersion, {
    defaultText: "latest",
    alias: "BM_VERSION",
  }),
  privateKey: list("--private-key <file>", "decrypt with the key in this file: OpenPGP private key, or age identity", {
    alias: "BM_PRIVATE_KEY_PATH",
  }),
  identity: list("--identity <file>", "decrypt with the age identities in this file"),
  output: text("--output <file>", "write to this file; - is standard output"),
  force: flag("--force", "overwrite the output file"),
  yes: flag("--yes", "do not ask"),

  abort: text("--abort <id>", "give up the upload with this id, or with the only id that begins so"),

  secretFile: text("--secret-file <file>", "file with the collection's health secret, instead of a session"),
  failOn: choice("--fail-on <status>", "mildest status that makes the exit code 8", ["failed", "warning"]),

  type: choice("--type <type>", "kind of key", ["openpgp", "age"]),
  name: text("--name <name>", "name in the key, and of the files"),
  email: text("--email <address>", "e-mail address in the key"),
  out: text("--out <path>", "path of the files without their endings, instead of --out-dir and --name"),
  outDir: text("--out-dir <folder>", "folder for the files", { default: "." }),

  config: text("--config <folder>", "folder of the configuration, instead of the argument"),
  data: text(
    "--data <folder>",
    "folder of the server's data; the configuration is in its folder config unless told otherwise",
    {
      default: "./strongroom-data",
    },
  ),
  admin: text("--admin <name>", "name of the first administrator"),
} as const;

/** Secrets: from the environment or files only, never from arguments. All are removed from the environment of child processes. */
export const SECRETS = {
  token: {
    env: "STRONGROOM_TOKEN",
    alias: "BM_AUTH_TOKEN",
    description: "session token, instead of the one kept by login",
  },
  password: { env: "STRONGROOM_PASSWORD", description: "password" },
  passphrase: { env: "STRONGROOM_PASSPHRASE", alias: "BM_PASSPHRASE", description: "passphrase" },
  healthSecret: {
    env: "STRONGROOM_HEALTH_SECRET",
    description: "health secret of the collection, instead of a session",
  },
} as const satisfies Record<string, SecretSpec>;

/** How to reach a server. */
export const SERVER_OPTIONS = [OPTIONS.url, OPTIONS.tlsCa, OPTIONS.tlsCert, OPTIONS.tlsKey] as const;

/** What every command that talks to a server takes. */
export const CONNECTION_OPTIONS = [...SERVER_OPTIONS, OPTIONS.tokenFile] as const;

/** What the program and every client command take. */
export const OUTPUT_OPTIONS = [OPTIONS.json, OPTIONS.quiet] as const;

function parseMinSize(given: string): bigint {
  const size = parseSize(given);
  return size < 1n ? 1n : size;
}

function parseLimit(given: string): number {
  const size = parseSize(given);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`expects a size of at most 8P, came "${given}"`);
  return Number(size);
}

function parseSha256(given: string): Uint8Array {
  if (!/^[0-9a-f]{64}$/i.test(given)) throw new Error(`expects 64 hexadecimal digits, got "${given}"`);
  return Buffer.from(given, "hex");
}

function parseParallel(given: string): number {
  const count = /^\d{1,2}$/.test(given) ? Number(given) : 0;
  if (count < 1 || count > 16) throw new Error(`expects a number from 1 to 16, came "${given}"`);
  return count;
}

/**
 * Reads `latest`, `7` or `v7`.
 * @returns the number, or `newest`.
 * @throws {Error} whose message begins with "expects".
 */
export function parseVersion(given: string): bigint | "newest" {
  if (given === "latest") return "newest";
  const number = /^v?(\d{1,18})$/.exec(given)?.[1];
  if (number === undefined || BigInt(number) === 0n)
    throw new Error(`expects a version number such as 7 or v7, or latest; came "${given}"`);
  return BigInt(number);
}
