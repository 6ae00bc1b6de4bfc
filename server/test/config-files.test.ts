import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import argon2 from "argon2";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { generateKey, readKey, revokeKey } from "openpgp";
import { readableSecrets } from "../src/adapters/config-files/secret-modes.ts";
import { ConfigFilesSource, loadConfiguration } from "../src/adapters/config-files/source.ts";
import { ConfigInvalidError, formatFolded, formatProblem } from "../src/objects/problem.ts";
import type { LoadResult } from "../src/objects/read-objects.ts";

/** A recipient of age, as far as the server looks at it. */
const AGE = "age1tfr96qyszcvuys6frlr9ujc3nv3duw63ug2kp20ttjy5ad0dv4lqp9uzdx";

const FIXTURES = fileURLToPath(new URL("./fixtures/config/", import.meta.url));

/**
 * Hash of "admin" at the least cost, so that tests are quick; as the package writes it, with the parameters in an order
 * of its own.
 */
const PACKAGE_HASH = await argon2.hash("admin", { type: argon2.argon2id, memoryCost: 64, timeCost: 1, parallelism: 4 });
/** The same in the usual order, as it is after loading. */
const HASH = PACKAGE_HASH.replace("m=64,p=4,t=1", "m=64,t=1,p=4");

async function directoryOf(t: ExecutionContext, files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = await temporaryFolder(t);
  for (const [file, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir, file)), { recursive: true });
    await writeFile(join(dir, file), content);
  }
  return dir;
}

async function load(t: ExecutionContext, files: Record<string, string | Uint8Array>): Promise<LoadResult> {
  return await loadConfiguration(await directoryOf(t, files));
}

function lines(result: LoadResult): { problems: string[]; warnings: string[] } {
  return { problems: result.problems.map(formatProblem), warnings: result.warnings.map(formatProblem) };
}

/** A user of name `ann`; `spec` replaces or adds fields, one a line. */
function user(spec: string[] = [], name = "ann"): string {
  return [
    "apiVersion: backups.riotkit.org/v1alpha1",
    "kind: BackupUser",
    `metadata: {name: ${name}}`,
    "spec:",
    "  email: ann@example.org",
    "  roles: []",
    ...(spec.some((line) => line.startsWith("password")) ? [] : [`  password: "${HASH}"`]),
    ...spec.map((line) => `  ${line}`),
    "",
  ].join("\n");
}

/** A collection of name `db`; further fields begin in line 8. */
function collection(spec: string[] = [], name = "db"): string {
  const limits = { maxBackupsCount: "5", maxOneVersionSize: "1M", maxCollectionSize: "10M" };
  return [
    "apiVersion: backups.riotkit.org/v1alpha1",
    "kind: BackupCollection",
    `metadata: {name: ${name}}`,
    "spec:",
    ...Object.entries(limits)
      .filter(([field]) => !spec.some((line) => line.startsWith(`${field}:`)))
      .map(([field, value]) => `  ${field}: ${value}`),
    ...spec.map((line) => `  ${line}`),
    "",
  ].join("\n");
}

function secret(data: string[], name = "passwords"): string {
  return ["apiVersion: v1", "kind: Secret", `metadata: {name: ${name}}`, ...data, ""].join("\n");
}

test("a directory of an existing installation loads without a word", async (t) => {
  const result = await loadConfiguration(join(FIXTURES, "existing"));
  t.deepEqual(lines(result), { problems: [], warnings: [] });
  t.is(result.files, 6);
  const { users, collections, organizations } = result.configuration;
  t.deepEqual(collections.get("city-archive"), {
    name: "city-archive",
    description: "Files of the city archive",
    organization: "",
    filenameTemplate: `city-archive-$\{version}.tar.gz`,
    maxBackupsCount: 5,
    maxOneVersionSize: 1_048_576n,
    maxCollectionSize: 10_485_760n,
    maxParallelUploads: 1,
    windows: [{ from: "*/30 * * * *", durationMs: 1_800_000 }],
    timezone: "UTC",
    rotation: { strategy: "fifo" },
    maxAgeMs: undefined,
    minRetentionMs: undefined,
    minVersionSize: 0n,
    minIntervalMs: undefined,
    maxVersionsPerWindow: undefined,
    maxUploadAgeMs: undefined,
    shrunkFactor: 4,
    rotationGuard: undefined,
    removalShare: 0.5,
    trashRetentionMs: undefined,
    encryptionFormats: ["openpgp"],
    recipientKeyIds: undefined,
    healthSecretSha256: "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918",
    accessControl: [{ userName: "admin", roles: ["collectionManager"] }],
  });
  t.deepEqual([...users.keys()].sort(), ["admin", "clerk", "guest"]);
  const admin = users.get("admin")!;
  t.deepEqual(
    { ...admin, passwordHash: undefined },
    {
      name: "admin",
      email: "admin@example.org",
      organization: "Archive",
      about: "Runs the archive's machines",
      deactivated: false,
      passwordHash: undefined,
      restrictByIp: ["1.2.3.4"],
      roles: ["collectionManager", "userManager", "systemAdmin"],
      accessKeys: [],
    },
  );
  t.deepEqual(users.get("clerk")!.accessKeys[0]!.objects, [
    { type: "collection", name: "city-archive", roles: ["backupUploader"] },
  ]);
  t.deepEqual(users.get("guest")!.roles, []);
  t.is(organizations.size, 0);
});

test("password hashes of an existing installation verify with argon2", async (t) => {
  const { configuration } = await loadConfiguration(join(FIXTURES, "existing"));
  const admin = configuration.users.get("admin")!.passwordHash!;
  const key = configuration.users.get("clerk")!.accessKeys[0]!.passwordHash!;
  t.true(await argon2.verify(admin, "admin"));
  t.false(await argon2.verify(admin, "test"));
  t.true(await argon2.verify(key, "test"));
  t.false(await argon2.verify(key, "admin"));
});

test("any layout and several documents in a file are fine", async (t) => {
  const result = await loadConfiguration(join(FIXTURES, "examples"));
  t.deepEqual(lines(result), { problems: [], warnings: [] });
  t.is(result.files, 3);
  t.deepEqual(result.configuration.collections.get("city-archive")!.accessControl, [
    { userName: "admin", roles: ["collectionManager"] },
  ]);
});

test("only the limits are required of a collection", async (t) => {
  const result = await load(t, { "c.yml": collection(), "u.json": JSON.stringify({ apiVersion: "v1", kind: "Pod" }) });
  t.deepEqual(lines(result).problems, []);
  const { description, filenameTemplate, rotation, timezone, windows } = result.configuration.collections.get("db")!;
  t.deepEqual(
    { description, filenameTemplate, rotation, timezone, windows },
    {
      description: "",
      filenameTemplate: `db-$\{version}`,
      rotation: { strategy: "fifo" },
      timezone: "UTC",
      windows: [],
    },
  );
});

test("every field of a collection is read", async (t) => {
  const { privateKey, publicKey } = await generateKey({ userIDs: [{ name: "a" }], format: "object" });
  const armored = publicKey
    .armor()
    .trim()
    .split(/\r?\n/)
    .map((line) => `    ${line}`);
  const result = await load(t, {
    "c.yaml": collection([
      "description: The database",
      "organization: acme",
      `filenameTemplate: dump-$\{version}.sql`,
      "maxParallelUploads: 3",
      "windows:",
      '  - {from: "0 1 * * *", duration: 1h30m}',
      '  - {from: "0 13 * * 1-5", duration: 45m}',
      "timezone: Europe/Warsaw",
      "strategyName: fifo",
      "strategySpec: {}",
      "maxAge: 36h",
      "minRetention: 2w",
      "minVersionSize: 4K",
      "minInterval: 2h",
      "maxVersionsPerWindow: 2",
      "maxUploadAge: 6h",
      "shrunkFactor: 2.5",
      "rotationGuard: shrunk",
      "confirmRemovalsAbove: 30%",
      "trashRetention: 3d",
      "encryption: [openpgp]",
      "healthSecretRef: {name: health, entry: db}",
      "accessControl:",
      "  - {userName: ann, roles: [backupUploader, backupUploader]}",
      "  - {name: ann, roles: [uploadsAnytime]}",
      "recipients:",
      "  - |",
      ...armored,
    ]),
    "o.yaml":
      "apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupOrganization\nmetadata: {name: acme}\nspec: " +
      "{maxTotalSize: 1T, description: x, maxUploadRate: 50M, maxParallelSegments: 8}\n",
    "u.yaml": user(),
    "s.yaml": secret([`data: {db: "${Buffer.from(`${"AB".repeat(32)}\n`).toString("base64")}"}`], "health"),
  });
  t.deepEqual(lines(result), { problems: [], warnings: [] });
  t.deepEqual(result.configuration.organizations.get("acme"), {
    name: "acme",
    maxTotalSize: 2n ** 40n,
    maxUploadRate: 50n * 2n ** 20n,
    maxParallelSegments: 8,
  });
  t.deepEqual(result.configuration.collections.get("db"), {
    name: "db",
    description: "The database",
    organization: "acme",
    filenameTemplate: `dump-$\{version}.sql`,
    maxBackupsCount: 5,
    maxOneVersionSize: 1_048_576n,
    maxCollectionSize: 10_485_760n,
    maxParallelUploads: 3,
    windows: [
      { from: "0 1 * * *", durationMs: 5_400_000 },
      { from: "0 13 * * 1-5", durationMs: 2_700_000 },
    ],
    timezone: "Europe/Warsaw",
    rotation: { strategy: "fifo" },
    maxAgeMs: 129_600_000,
    minRetentionMs: 1_209_600_000,
    minVersionSize: 4096n,
    minIntervalMs: 7_200_000,
    maxVersionsPerWindow: 2,
    maxUploadAgeMs: 21_600_000,
    shrunkFactor: 2.5,
    rotationGuard: "shrunk",
    removalShare: 0.3,
    trashRetentionMs: 259_200_000,
    encryptionFormats: ["openpgp"],
    recipientKeyIds: [privateKey.getSubkeys()[0]!.getKeyID().toHex()],
    healthSecretSha256: "ab".repeat(32),
    accessControl: [
      { userName: "ann", roles: ["backupUploader"] },
      { userName: "ann", roles: ["uploadsAnytime"] },
    ],
  });
});

test("encryption: one, both, or a list", async (t) => {
  const formats = async (text: string) =>
    (await load(t, { "c.yaml": collection([`encryption: ${text}`]) })).configuration.collections.get("db")!
      .encryptionFormats;
  t.deepEqual(await formats("openpgp"), ["openpgp"]);
  t.deepEqual(await formats("age"), ["age"]);
  t.deepEqual(await formats("any-of"), ["openpgp", "age"]);
  t.deepEqual(await formats("[age, openpgp, age]"), ["age", "openpgp"]);
});

// Fields of a collection that are wrong: the lines from line 8 on, and the one problem expected.
const wrong: [name: string, spec: string[], problem: string | RegExp][] = [
  [
    "count of zero",
    ["maxBackupsCount: 0"],
    "c.yaml:7: spec.maxBackupsCount: expected a whole number from 1 to 1000000, got 0",
  ],
  [
    "count in quotes",
    ['maxBackupsCount: "5"'],
    'c.yaml:7: spec.maxBackupsCount: expected a whole number from 1 to 1000000, got the text "5"; without quotes',
  ],
  ["count as a fraction", ["maxBackupsCount: 1.5"], /c\.yaml:7: spec\.maxBackupsCount: .*got 1\.5$/],
  ["count as a list", ["maxBackupsCount: [5]"], /c\.yaml:7: spec\.maxBackupsCount: .*got a list$/],
  [
    "count missing",
    ["maxBackupsCount:"],
    /^c\.yaml:7: spec\.maxBackupsCount: expected the number of copies to keep, got nothing; add the field$/,
  ],
  ["size of zero", ["maxOneVersionSize: 0"], 'c.yaml:7: spec.maxOneVersionSize: expected a size above zero, got "0"'],
  [
    "size that is none",
    ["maxOneVersionSize: lots"],
    /c\.yaml:7: spec\.maxOneVersionSize: expected a size such as .*got "lots"$/,
  ],
  [
    "size as a mapping",
    ["maxCollectionSize: {a: 1}"],
    "c.yaml:7: spec.maxCollectionSize: expected text or a number, got a mapping",
  ],
  [
    "negative extra space",
    ["maxCollectionSize: 4M"],
    "c.yaml:7: spec.maxCollectionSize: expected at least maxBackupsCount * maxOneVersionSize = 5 * 1 MiB = 5 MiB " +
      "(5242880 bytes), got 4 MiB (4194304 bytes), so the extra space is -1 MiB; raise maxCollectionSize or lower " +
      "one of the others",
  ],
  ["uploads", ["maxParallelUploads: 1001"], /c\.yaml:8: spec\.maxParallelUploads: .*got 1001$/],
  [
    "window duration",
    ["windows:", '  - from: "0 1 * * *"', "    duration: 1 hour"],
    'c.yaml:10: spec.windows[0].duration: expected a duration such as 45s, 30m, 1h30m, 5d or 2w, got "1 hour"',
  ],
  [
    "window start",
    ["windows:", "  - from: 0 25 * * *", "    duration: 1h"],
    /c\.yaml:9: spec\.windows\[0\]\.from: expected a cron expression/,
  ],
  [
    "window without duration",
    ["windows:", "  - from: 0 1 * * *"],
    /c\.yaml:9: spec\.windows\[0\]\.duration: .*got nothing/,
  ],
  ["windows as a mapping", ["windows: {from: x}"], "c.yaml:8: spec.windows: expected a list, got a mapping"],
  ["window that is empty", ["windows:", "  -"], "c.yaml:9: spec.windows[0]: expected an item, got nothing"],
  [
    "time zone",
    ["timezone: Europe/Warsawa"],
    'c.yaml:8: spec.timezone: expected the IANA name of a time zone such as UTC or Europe/Warsaw, got "Europe/Warsawa"',
  ],
  ["max age", ["maxAge: 36"], /c\.yaml:8: spec\.maxAge: .*got "36"; the unit is missing$/],
  [
    "least size",
    ["minVersionSize: 7M"],
    /c\.yaml:8: spec\.minVersionSize: expected at most what one version may have, 6 MiB .*got 7 MiB$/,
  ],
  ["no versions per window", ["maxVersionsPerWindow: 0"], /c\.yaml:8: .*a whole number from 1 to 1000000, got 0$/],
  ["no interval", ["minInterval: 0s"], /c\.yaml:8: spec\.minInterval: .*leave the field out for none$/],
  ["no upload age", ["maxUploadAge: 0h"], /c\.yaml:8: spec\.maxUploadAge: .*leave the field out for none$/],
  ["shrunk factor", ["shrunkFactor: 1"], /c\.yaml:8: spec\.shrunkFactor: expected a number above 1 .*got 1$/],
  ["rotation guard", ["rotationGuard: shrunken"], /c\.yaml:8: spec\.rotationGuard: .*did you mean "shrunk"/],
  ["share", ["confirmRemovalsAbove: 0.5"], /c\.yaml:8: spec\.confirmRemovalsAbove: expected a share .*got "0\.5"$/],
  ["share above all", ["confirmRemovalsAbove: 101%"], /confirmRemovalsAbove: expected a share from 0% to 100%/],
  ["guard without check", ["rotationGuard: shrunk", "shrunkFactor: 0"], /c\.yaml:8: spec\.rotationGuard: .*got 0/],
  ["trash retention", ["trashRetention: 23h"], /c\.yaml:8: spec\.trashRetention: .*at least 24h, got "23h"/],
  ["retention of zero", ["minRetention: 0s"], /c\.yaml:8: spec\.minRetention: .*leave the field out for none$/],
  [
    "encryption",
    ["encryption: pgp"],
    'c.yaml:8: spec.encryption: expected openpgp, age, any-of or a list of them, got "pgp"',
  ],
  ["encryption list", ["encryption: []"], /c\.yaml:8: spec\.encryption: .*got an empty list$/],
  [
    "encryption misspelt",
    ["encryption: [agee]"],
    /c\.yaml:8: spec\.encryption\[0\]: .*got "agee"; did you mean "age"\?$/,
  ],
  ["recipients empty", ["recipients: []"], /c\.yaml:8: spec\.recipients: .*leave the field out for any key$/],
  [
    "no recipient of a format",
    ["encryption: any-of", `recipients: ${AGE}`],
    /: expected a key of openpgp too, or encr/,
  ],
  ["recipient of no format", ["encryption: openpgp", `recipients: ${AGE}`], /age recipient, which encryption does not/],
  ["age private key", ["encryption: age", "recipients: AGE-SECRET-KEY-1ABC"], /got a private key; the server must/],
  [
    "age mistyped",
    ["encryption: age", `recipients: ${AGE.slice(0, -1)}${AGE.endsWith("q") ? "p" : "q"}`],
    /checksum is wrong/,
  ],
  ["age plugin", ["encryption: age", "recipients: age1yubikey1qqq"], /got one of the plugin yubikey/],
  [
    "recipient by id",
    ["recipients: [0123456789ABCDEF]"],
    /c\.yaml:8: spec\.recipients\[0\]: expected an armored OpenPGP public key .*got something else$/,
  ],
  [
    "recipient that is broken",
    [
      "recipients:",
      "  - |",
      "    -----BEGIN PGP PUBLIC KEY BLOCK-----",
      "",
      "    aGVsbG8=",
      "    -----END PGP PUBLIC KEY BLOCK-----",
    ],
    /c\.yaml:9: spec\.recipients\[0\]: expected an armored .*cannot be read/,
  ],
  ["file name with a slash", ["filenameTemplate: ../x"], /c\.yaml:8: spec\.filenameTemplate: expected a file name of/],
  [
    "file name with a line end",
    ['filenameTemplate: "a\\r\\nb"'],
    /c\.yaml:8: spec\.filenameTemplate: expected a file name of/,
  ],
  ["description", ["description: 5"], "c.yaml:8: spec.description: expected text, got a number; put it in quotes"],
  [
    "organization unknown",
    ["organization: acme"],
    /c\.yaml:8: spec\.organization: expected the name of a BackupOrganization .*got "acme", which is not there$/,
  ],
  [
    "secret unknown",
    ["healthSecretRef:", "  name: nowhere", "  entry: x"],
    'c.yaml:9: spec.healthSecretRef.name: expected the name of a Secret in this directory, got "nowhere", ' +
      "which is not there",
  ],
  [
    "secret without entry",
    ["healthSecretRef: {name: nowhere}"],
    /c\.yaml:8: spec\.healthSecretRef\.entry: .*got nothing/,
  ],
  [
    "access list type",
    ["accessControl: [{name: ann, type: group, roles: []}]"],
    /c\.yaml:8: spec\.accessControl\[0\]\.type: expected "user", got "group"/,
  ],
  [
    "access list names",
    ["accessControl: [{name: bob, userName: ann, roles: []}]"],
    /c\.yaml:8: spec\.accessControl\[0\]\.name: expected either/,
  ],
  [
    "access list role",
    ["accessControl: [{userName: ann, roles: [backupUploder]}]"],
    /got "backupUploder"; did you mean "backupUploader"\?$/,
  ],
  [
    "access list without roles",
    ["accessControl: [{userName: ann}]"],
    /c\.yaml:8: spec\.accessControl\[0\]\.roles: expected a list of roles, got nothing/,
  ],
];

for (const [name, spec, problem] of wrong) {
  test(`collection, ${name}`, async (t) => {
    const result = await load(t, { "c.yaml": collection(spec), "u.yaml": user() });
    const [first = ""] = lines(result).problems;
    if (typeof problem === "string") t.is(first, problem);
    else t.regex(first, problem);
    t.is(result.configuration.collections.size, 0);
    t.is(result.configuration.users.size, 1);
  });
}

test("recipients of age: how many keys of its own, and SSH keys by their tags", async (t) => {
  const ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
  const lines = [
    `"${AGE}"`,
    `"# of the operators\\nage17j48mcxlng3y8s5p36830nrg7lrudeye55vr83qjkdqee2fweccqd0rvng"`,
    `"${ssh} alice@example.org"`,
    `"${ssh}"`,
  ];
  const result = await load(t, {
    "c.yaml": collection(["encryption: age", "recipients:", ...lines.map((line) => `  - ${line}`)]),
    "u.yaml": user(),
  });
  t.deepEqual(result.problems, []);
  const { ageRecipients, recipientKeyIds } = result.configuration!.collections.get("db")!;
  const [tag, ...others] = Object.keys(ageRecipients!).filter((name) => name !== "age:X25519");
  t.regex(tag!, /^age:ssh-ed25519:[\w+/]{6}$/);
  t.deepEqual([others, ageRecipients, recipientKeyIds], [[], { "age:X25519": 2, [tag!]: 1 }, []]);
});

/** A collection's `recipients`, an item for each text. */
function recipients(texts: readonly string[]): string {
  const block = (text: string) => text.trim().split(/\r?\n/);
  const items = texts.flatMap((text) => ["  - |", ...block(text).map((line) => `    ${line}`)]);
  return collection(["recipients:", ...items]);
}

async function subkeyIds(armored: string): Promise<string[]> {
  return (await readKey({ armoredKey: armored })).getSubkeys().map((subkey) => subkey.getKeyID().toHex());
}

test("recipients: all parts that can encrypt, of several keys, expired or not", async (t) => {
  const long = await generateKey({ userIDs: [{ name: "a" }], subkeys: [{}, { sign: true }, {}], format: "armored" });
  const other = await generateKey({ userIDs: [{ name: "b" }], format: "armored" });
  const past = { keyExpirationTime: 1, date: new Date(0) };
  const expired = await generateKey({ userIDs: [{ name: "c" }], ...past, format: "armored" });
  const texts = [`${long.publicKey}\n${other.publicKey}`, expired.publicKey];
  const result = await load(t, { "c.yaml": recipients(texts), "u.yaml": user() });
  t.deepEqual(lines(result), { problems: [], warnings: [] });
  const [first, , third] = await subkeyIds(long.publicKey);
  const others = [...(await subkeyIds(other.publicKey)), ...(await subkeyIds(expired.publicKey))];
  const ids = result.configuration.collections.get("db")!.recipientKeyIds!;
  t.deepEqual(ids, [first!, third!, ...others]);
  t.true(ids.every((id) => /^[0-9a-f]{16}$/.test(id)));
});

test("recipients: no private key, none that only signs, none that is revoked", async (t) => {
  const problem = async (text: string) => lines(await load(t, { "c.yaml": recipients([text]) })).problems.join();
  const key = await generateKey({ userIDs: [{ name: "a" }], format: "armored" });
  t.regex(
    await problem(key.privateKey),
    /^c\.yaml:9: spec\.recipients\[0\]: .*got a private key; the server must never/,
  );
  t.regex(await problem(key.privateKey.replaceAll("PRIVATE", "PUBLIC")), /got a private key|cannot be read/);

  const signing = await generateKey({ userIDs: [{ name: "b" }], subkeys: [{ sign: true }], format: "armored" });
  const unusable = (why: string) => new RegExp(`expected a key that can encrypt, got [0-9a-f]{16}: ${why}$`);
  t.regex(await problem(signing.publicKey), unusable("it can only sign"));

  const { publicKey: revoked } = await revokeKey({
    key: await readKey({ armoredKey: key.publicKey }),
    revocationCertificate: key.revocationCertificate,
    format: "armored",
  });
  t.regex(await problem(revoked), unusable("it is revoked"));
});

test("recipients: old kinds of keys are pinned, and a curve that cannot be checked is named", async (t) => {
  const fixture = async (name: string) => await readFile(new URL(`fixtures/${name}`, import.meta.url), "utf8");
  const dsa = await load(t, { "c.yaml": recipients([await fixture("dsa.pub.asc")]), "u.yaml": user() });
  t.deepEqual(lines(dsa), { problems: [], warnings: [] });
  const ids = dsa.configuration.collections.get("db")!.recipientKeyIds!;
  t.deepEqual(ids, await subkeyIds(await fixture("dsa.pub.asc")));
  const brainpool = await load(t, { "c.yaml": recipients([await fixture("brainpool.pub.asc")]) });
  t.regex(lines(brainpool).problems.join(), /: it uses the curve brainpoolP256r1, which cannot be checked here/);
});

const rotationOf = async (t: ExecutionContext, spec: string[]) => {
  const result = await load(t, { "c.yaml": collection(spec), "u.yaml": user() });
  return { ...lines(result), rotation: result.configuration.collections.get("db")?.rotation };
};

test("rotation: fifo-plus-older with what it needs, else as fifo with a warning", async (t) => {
  const older = (details: string, more: string[] = []) =>
    rotationOf(t, ["strategyName: fifo-plus-older", `strategySpec: ${details}`, ...more]);
  const policy = { strategy: "fifo-plus-older", older: { maxOlderCopies: 2, maxAgeMs: 5 * 86_400_000 } };
  t.deepEqual(await older("{keepLastOlderNotMoreThan: 5d, maxOlderCopies: 2}"), {
    problems: [],
    warnings: [],
    rotation: policy,
  });
  const short = await older("{keepLastOlderNotMoreThan: 5d, maxOlderCopies: 2}", ["maxCollectionSize: 6M"]);
  t.deepEqual(short.rotation, policy);
  t.regex(
    short.warnings.join(),
    /spec\.maxCollectionSize: it has room for 6 versions at maxOneVersionSize, 7 are asked/,
  );
  for (const details of ["{maxOlderCopies: 2}", "{keepLastOlderNotMoreThan: 5d}", "{maxOlderCopies: 0}"]) {
    const { problems, warnings, rotation } = await older(details);
    t.deepEqual([problems, rotation], [[], { strategy: "fifo" }], details);
    t.regex(
      warnings.join(),
      /c\.yaml:8: spec\.strategyName: expected maxOlderCopies above 0 and keepLastOlder/,
      details,
    );
  }
  const wrong = await older("{keepLastOlderNotMoreThan: soon, maxOlderCopies: 2}");
  t.deepEqual([wrong.problems, wrong.rotation], [[], { strategy: "fifo" }]);
});

test("rotation: gfs, whose copies are the sum of its rules", async (t) => {
  const counts = { keepLast: 2, keepHourly: 0, keepDaily: 3, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };
  const gfs = (details: string, more: string[]) =>
    rotationOf(t, ["strategyName: gfs", `strategySpec: ${details}`, ...more]);
  const found = await gfs("{keepLast: 2, keepDaily: 3}", ["maxCollectionSize: 5M"]);
  t.deepEqual([found.problems, found.rotation], [[], { strategy: "gfs", counts }]);
  t.regex(found.warnings.join(), /spec\.maxBackupsCount: it has no effect under gfs/);
  const large = await gfs("{keepLast: 2, keepDaily: 3}", ["maxCollectionSize: 4M"]);
  t.regex(large.problems.join(), /expected at least sum of keep\* \* maxOneVersionSize = 5 \* 1 MiB = 5 MiB/);
  t.regex(
    (await gfs("{}", [])).problems.join(),
    /expected at least one of keepLast, .* above 0 in strategySpec, got none/,
  );
  t.regex((await gfs("{keepDaily: -1}", [])).problems.join(), /keepDaily: expected a whole number from 0/);
  t.regex((await gfs("{keepDayly: 1, keepLast: 1}", [])).warnings.join(), /did you mean "keepDaily"/);
});

test("a file that is cut off takes nothing away: nothing in it, or half of a kind, is a mistake", async (t) => {
  const cut = async (text: string) => lines(await load(t, { "c.yaml": collection(), "u.yaml": text }));
  t.regex(
    (await cut("")).problems.join(),
    /^u\.yaml:1: the file is empty, perhaps cut off; write it again, or remove it$/,
  );
  t.regex((await cut(" \n\n")).problems.join(), /the file is empty/);
  t.deepEqual((await cut("# no users yet\n")).problems, []);
  const half = await cut("apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupUs");
  t.regex(
    half.problems.join(),
    /^u\.yaml:2: kind: expected BackupUser, .*, got "BackupUs"; did you mean "BackupUser"\?$/,
  );
  t.regex((await cut("kind: Back")).problems.join(), /^u\.yaml:1: kind: expected BackupUser/);
  const other = await cut("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}");
  t.deepEqual(other.problems, []);
  t.regex(other.warnings.join(), /kind "Deployment" is not read by this server, ignored/);
});

test("a window's start of four fields is read as before, with a warning", async (t) => {
  const result = await load(t, {
    "c.yaml": collection(["windows:", '  - {from: "0 1 * *", duration: 1h}']),
    "u.yaml": user(),
  });
  t.is(result.configuration.collections.get("db")!.windows[0]!.from, "0 1 * * *");
  t.regex(lines(result).warnings.join(), /spec\.windows\[0\]\.from: it has four fields, .* the weekday means any/);
});

test("rotation: an unknown strategy is an error with the nearest name", async (t) => {
  const { problems } = await rotationOf(t, ["strategyName: fifo-plus-oldr"]);
  t.regex(
    problems.join(),
    /strategyName: expected fifo, fifo-plus-older, gfs, got "fifo-plus-oldr"; did you mean "fifo-plus-older"\?/,
  );
});

test("unknown fields are warnings, with the nearest known spelling", async (t) => {
  const result = await load(t, {
    "c.yaml": collection([
      "maxParalelUploads: 2",
      "windows:",
      '  - {from: "0 1 * * *", duration: 1h, colour: red}',
      '"a b": 1',
    ]),
    "u.yaml": user(["restrictByIp: [1.2.3.4]"]),
  });
  t.deepEqual(lines(result), {
    problems: [],
    warnings: [
      'c.yaml:8: spec.maxParalelUploads: unknown field, ignored; did you mean "maxParallelUploads"?',
      "c.yaml:10: spec.windows[0].colour: unknown field, ignored",
      'c.yaml:11: spec."a b": unknown field, ignored',
      'u.yaml:8: spec.restrictByIp: unknown field, ignored; did you mean "restrictByIP"?',
    ],
  });
});

test("references that allow nothing are warnings", async (t) => {
  const access = "accessControl: [{userName: anne, roles: [backupUploader, systemAdmin]}]";
  const keys =
    `accessKeys: [{name: k, password: "${HASH}", objects: [{name: dbb, type: collection, roles: []}, {name: x, ` +
    "type: bucket}]}]";
  const result = await load(t, { "c.yaml": collection([access]), "u.yaml": user([keys]) });
  t.deepEqual(lines(result).problems, []);
  t.deepEqual(
    lines(result).warnings.map((line) => line.replace(/expected.*got/, "...")),
    [
      "c.yaml:8: spec.accessControl[0].roles[1]: the role systemAdmin has no effect on one collection, " +
        "ignored; give it in the user's own spec.roles",
      'c.yaml:8: spec.accessControl[0].userName: ... "anne", which is not there, so it allows nothing; did you ' +
        'mean "ann"?',
      'u.yaml:8: spec.accessKeys[0].objects[1].type: ... "bucket"; there are no other types, so it allows nothing',
      'u.yaml:8: spec.accessKeys[0].objects[0].name: ... "dbb", which is not there, so it allows nothing; did ' +
        'you mean "db"?',
    ],
  );
  t.deepEqual(result.configuration.collections.get("db")!.accessControl, [
    { userName: "anne", roles: ["backupUploader"] },
  ]);
});

test("an object that is there but wrong is not called missing", async (t) => {
  const result = await load(t, {
    "c.yaml": collection(["accessControl: [{userName: ann, roles: []}]"]),
    "u.yaml": user(["deactivated: perhaps"]),
  });
  t.deepEqual(lines(result), {
    problems: ["u.yaml:8: spec.deactivated: expected true or false, got text; write true or false without quotes"],
    warnings: [],
  });
});

test("every field of a user is read", async (t) => {
  const result = await load(t, {
    "c.yaml": collection(),
    "u.yaml": user(
      [
        "organization: Acme",
        "about: text",
        "deactivated: true",
        "restrictByIP: [1.2.3.4, 10.0.0.0/8, '2001:db8::1', '2001:db8::/32', 0.0.0.0/0]",
        "accessKeys:",
        `  - {name: nightly, password: "${Buffer.from(HASH).toString("base64")}", ` +
          "restrictByIP: [192.0.2.0/24, '2001:db8::7'], objects: [{name: db, type: collection, roles: [backupUploader]}]}",
        `  - {name: other, password: "${HASH}"}`,
      ],
      "Ann@example.org",
    ),
  });
  t.deepEqual(lines(result), { problems: [], warnings: [] });
  t.deepEqual(result.configuration.users.get("Ann@example.org"), {
    name: "Ann@example.org",
    email: "ann@example.org",
    organization: "Acme",
    about: "text",
    deactivated: true,
    passwordHash: HASH,
    restrictByIp: ["1.2.3.4", "10.0.0.0/8", "2001:db8::1", "2001:db8::/32", "0.0.0.0/0"],
    roles: [],
    accessKeys: [
      {
        name: "nightly",
        passwordHash: HASH,
        restrictByIp: ["192.0.2.0/24", "2001:db8::7"],
        objects: [{ type: "collection", name: "db", roles: ["backupUploader"] }],
      },
      { name: "other", passwordHash: HASH, restrictByIp: [], objects: [] },
    ],
  });
});

const wrongUsers: [name: string, spec: string[], problem: RegExp][] = [
  ["a field twice", ["roles: [systemAdmin]"], /^u\.yaml:8: not valid YAML: the same field twice/],
  ["deactivated as YAML 1.1", ["deactivated: yes"], /u\.yaml:8: spec\.deactivated: expected true or false, got text; /],
  [
    "address",
    ["restrictByIP: [1.2.3.400]"],
    /u\.yaml:8: spec\.restrictByIP\[0\]: expected an IP address or a range .*got "1\.2\.3\.400"$/,
  ],
  ["address range", ["restrictByIP: [10.0.0.0/33]"], /the number after "\/" goes from 0 to 32$/],
  ["address range of v6", ["restrictByIP: ['::/129']"], /the number after "\/" goes from 0 to 128$/],
  ["address with zone", ["restrictByIP: ['fe80::1%eth0']"], /expected an IP address/],
  [
    "address of an access key",
    [`accessKeys: [{name: a, password: "${HASH}", restrictByIP: [here]}]`],
    /u\.yaml:8: spec\.accessKeys\[0\]\.restrictByIP\[0\]: expected an IP address/,
  ],
  ["address of a host", ["restrictByIP: [localhost]"], /expected an IP address/],
  ["address with two slashes", ["restrictByIP: [10.0.0.0/8/8]"], /expected an IP address/],
  [
    "access key name",
    [`accessKeys: [{name: a$b, password: "${HASH}"}]`],
    /u\.yaml:8: spec\.accessKeys\[0\]\.name: .*got "a\$b"; "\$" stands between/,
  ],
  [
    "access key twice",
    [`accessKeys: [{name: a, password: "${HASH}"}, {name: a, password: "${HASH}"}]`],
    /spec\.accessKeys\[1\]\.name: expected each access key once, got "a" again/,
  ],
  ["access key without name", [`accessKeys: [{password: "${HASH}"}]`], /spec\.accessKeys\[0\]\.name: .*got nothing/],
  [
    "reference to a missing secret",
    ["passwordFromRef: {name: password, entry: ann}"],
    /u\.yaml:7: spec\.passwordFromRef\.name: .*got "password", which is not there; did you mean "passwords"\?$/,
  ],
  [
    "reference to a missing entry",
    ["passwordFromRef: {name: passwords, entry: anne}"],
    /u\.yaml:7: spec\.passwordFromRef\.entry: expected an entry of the Secret "passwords", got "anne", which it lacks; did you mean "ann"\?$/,
  ],
  [
    "reference that is text",
    ["passwordFromRef: passwords"],
    /u\.yaml:7: spec\.passwordFromRef: expected a mapping, got text$/,
  ],
];

for (const [name, spec, problem] of wrongUsers) {
  test(`user, ${name}`, async (t) => {
    const result = await load(t, { "u.yaml": user(spec), "s.yaml": secret([`data: {ann: "${HASH}"}`]) });
    const { problems } = lines(result);
    t.true(
      problems.some((line) => problem.test(line)),
      problems.join("\n"),
    );
    t.is(result.configuration.users.size, 0);
  });
}

test("roles of a user: unknown ones are reported, usersManager is userManager", async (t) => {
  const roles = (list: string) => user().replace("roles: []", `roles: ${list}`);
  const bad = await load(t, { "u.yaml": roles("[collectionManagr]") });
  t.regex(
    lines(bad).problems.join(),
    /^u\.yaml:6: spec\.roles\[0\]: expected one of the roles .*did you mean "collectionManager"\?$/,
  );
  const good = await load(t, { "u.yaml": roles("[usersManager, userManager, systemAdmin]") });
  t.deepEqual(good.configuration.users.get("ann")!.roles, ["userManager", "systemAdmin"]);
});

test("names: what is refused", async (t) => {
  for (const name of ['"a$b"', '""', '".a"', '"a/b"', '"a..b"', '"a b"', '"a."', `"${"a".repeat(254)}"`]) {
    const result = await load(t, { "u.yaml": user([], name) });
    t.regex(lines(result).problems.join(), /^u\.yaml:3: metadata\.name: expected a name of 1 to 253/, name);
  }
  for (const name of ['"A"', '"a@b"', '"../a"', '"-a"', '"é"']) {
    const result = await load(t, { "c.yaml": collection([], name) });
    t.regex(lines(result).problems.join(), /^c\.yaml:3: metadata\.name: expected a name of 1 to 253 lower-case/, name);
  }
  t.regex(
    lines(await load(t, { "u.yaml": user([], "5") })).problems.join(),
    /u\.yaml:3: metadata\.name: expected text, got a number; put it in quotes/,
  );
});

test("the same kind and name twice is a problem that names the first place", async (t) => {
  const result = await load(t, { "a.yaml": user(), "b/c.yaml": `${collection()}---\n${user()}` });
  t.regex(
    lines(result).problems.join(),
    /^b\/c\.yaml:11: metadata\.name: expected each BackupUser once, got "ann" again \(first in a\.yaml:3\)/,
  );
});

// Ways a Secret may hold the hash of "admin".
const padded = HASH.split("$")
  .map((part, index) => (index > 3 ? part.padEnd(Math.ceil(part.length / 4) * 4, "=") : part))
  .join("$");
const encode = (text: string) => Buffer.from(text).toString("base64");
const encoded = encode(padded);
const secretForms: [name: string, data: string][] = [
  ["as it is", `data: {ann: "${HASH}"}`],
  ["as the argon2 package writes it", `data: {ann: "${PACKAGE_HASH}"}`],
  ["padded", `data: {ann: "${padded}"}`],
  ["in base64", `data: {ann: "${encoded}"}`],
  ["in base64 without padding", `data: {ann: "${encoded.replace(/=+$/, "")}"}`],
  ["in base64 twice", `data: {ann: "${encode(encoded)}"}`],
  ["in base64 with line ends inside", `data: {ann: "${encode(`${encoded}\n`)}"}`],
  ["as stringData", `stringData: {ann: "${HASH}"}`],
  ["in base64 as stringData, which replaces data", `data: {ann: nonsense}\nstringData: {ann: "${encoded}"}`],
  ["as a block over several lines", `data:\n  ann: |\n    ${encoded.slice(0, 60)}\n    ${encoded.slice(60)}`],
];

for (const [name, data] of secretForms) {
  test(`a hash in a Secret ${name}`, async (t) => {
    const result = await load(t, {
      "u.yaml": user(["passwordFromRef: {name: passwords, entry: ann}"]),
      "s.yaml": secret([data]),
    });
    t.deepEqual(lines(result), { problems: [], warnings: [] });
    t.is(result.configuration.users.get("ann")!.passwordHash, HASH);
    t.true(await argon2.verify(result.configuration.users.get("ann")!.passwordHash!, "admin"));
  });
}

// Values that are no usable hash; none may appear in a message, in whatever form.
const [, , , , salt = "", digest = ""] = HASH.split("$");
const noHashes: [name: string, value: string, reason: RegExp][] = [
  ["a password", "correct-horse-battery", /got something else \(not shown\)/],
  ["an encoded password", encode("correct-horse-battery"), /got something else \(not shown\)/],
  ["a number", "123456789", /got something else \(not shown\)/],
  ["bcrypt", "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", /got a hash of the scheme "2b"/],
  ["argon2i", HASH.replace("argon2id", "argon2i"), /got a hash of the scheme "argon2i"/],
  ["a text with a dollar", "$hunter2$x", /got another scheme \(not shown\)/],
  ["another version", HASH.replace("v=19", "v=16"), /got an argon2id hash of another form/],
  ["no version", HASH.replace("v=19$", ""), /got an argon2id hash of another form/],
  [
    "too much memory",
    `$argon2id$v=19$m=1048577,t=1,p=4$${salt}$${digest}`,
    /m \(memory\) from 32 to 1048576 KiB, got 1048577/,
  ],
  ["too little memory", `$argon2id$v=19$m=31,t=1,p=4$${salt}$${digest}`, /m \(memory\) from 32 to 1048576 KiB, got 31/],
  ["too many passes", `$argon2id$v=19$m=64,t=11,p=4$${salt}$${digest}`, /t \(passes\) from 1 to 10, got 11/],
  ["no passes", `$argon2id$v=19$m=64,t=0,p=4$${salt}$${digest}`, /t \(passes\) from 1 to 10, got 0/],
  ["too many lanes", `$argon2id$v=19$m=1024,t=1,p=17$${salt}$${digest}`, /p \(lanes\) from 1 to 16, got 17/],
  ["a short salt", `$argon2id$v=19$m=64,t=1,p=4$c2FsdA$${digest}`, /whose salt is base64 of 8 to 64 bytes/],
  ["a short digest", `$argon2id$v=19$m=64,t=1,p=4$${salt}$c2FsdA`, /whose hash is base64 of 16 to 128 bytes/],
  ["a digest that is no base64", `$argon2id$v=19$m=64,t=1,p=4$${salt}$${"é".repeat(30)}`, /whose hash is base64/],
  ["no digest", `$argon2id$v=19$m=64,t=1,p=4$${salt}`, /whose hash is base64/],
  ["another field", `${HASH}$x`, /got an argon2id hash of another form/],
];

for (const [name, value, reason] of noHashes) {
  test(`no hash: ${name}`, async (t) => {
    const inline = await load(t, { "u.yaml": user([`password: ${JSON.stringify(value)}`]) });
    const referred = await load(t, {
      "u.yaml": user(["passwordFromRef: {name: passwords, entry: ann}"]),
      "s.yaml": secret(["data:", `  ann: ${JSON.stringify(value)}`]),
    });
    t.regex(lines(inline).problems.join(), /^u\.yaml:7: spec\.password: expected an argon2id hash/);
    t.regex(
      lines(referred).problems.join(),
      /^s\.yaml:5: data\.ann: .*\(spec\.passwordFromRef in u\.yaml:7 refers to it\)$/,
    );
    for (const line of [...lines(inline).problems, ...lines(referred).problems]) {
      t.regex(line, reason);
      for (const secretPart of [value, salt, digest, "correct-horse", "hunter2", "R9h/cIPz"])
        t.false(line.includes(secretPart), line);
    }
  });
}

test("a password that is a number is not shown either", async (t) => {
  const result = await load(t, {
    "u.yaml": user(["password: 48151623"]),
    "v.yaml": user(["passwordFromRef: {name: passwords, entry: n}"], "bob"),
    "s.yaml": secret(["data: {n: 48151623}"]),
  });
  t.deepEqual(lines(result).problems, [
    "s.yaml:4: data.n: expected text, got a number; put it in quotes",
    "u.yaml:7: spec.password: expected text, got a number; put it in quotes",
  ]);
});

test("without a password a user cannot log in, which is worth a warning", async (t) => {
  for (const field of ['password: ""', "password:", 'passwordFromRef: {name: "", entry: ""}']) {
    const result = await load(t, { "u.yaml": user([field]) });
    t.deepEqual(lines(result), {
      problems: [],
      warnings: ["u.yaml:4: spec: this user has no password and cannot log in; set passwordFromRef or password"],
    });
    t.is(result.configuration.users.get("ann")!.passwordHash, undefined);
  }
});

test("a hash beside a reference is not used, and said so", async (t) => {
  const result = await load(t, {
    "u.yaml": user([`password: "${HASH.replace("t=1", "t=2")}"`, "passwordFromRef: {name: passwords, entry: ann}"]),
    "s.yaml": secret([`data: {ann: "${HASH}"}`]),
  });
  t.deepEqual(lines(result), {
    problems: [],
    warnings: ["u.yaml:7: spec.password: not used, because passwordFromRef stands beside it; remove one of them"],
  });
  t.is(result.configuration.users.get("ann")!.passwordHash, HASH);
});

test("a health secret that is no SHA-256 is reported at the Secret, not shown", async (t) => {
  const result = await load(t, {
    "c.yaml": collection(["healthSecretRef: {name: health, entry: db}"]),
    "s.yaml": secret(["data:", "  db: swordfish"], "health"),
  });
  t.regex(
    lines(result).problems.join(),
    /^s\.yaml:5: data\.db: expected the SHA-256 of the health secret .*spec\.healthSecretRef in c\.yaml:8/,
  );
  t.false(lines(result).problems.join().includes("swordfish"));
});

test("Secrets of other programs are left alone", async (t) => {
  const result = await load(t, {
    "s.yaml": secret(["data: {tls.crt: x, n: 5}", "immutable: true", "type: Opaque"]),
    "u.yaml": user(),
  });
  t.deepEqual(lines(result), { problems: [], warnings: [] });
});

test("other kinds and documents are skipped with a warning", async (t) => {
  const result = await load(t, {
    "a.yaml":
      "apiVersion: apps/v1\nkind: Deployment\n---\n# nothing\n---\nreplicas: 3\n---\n---\napiVersion: " +
      "x/v1\nkind: BackupUsr\n",
    "u.yaml": user(),
  });
  t.deepEqual(lines(result), {
    problems: [],
    warnings: [
      'a.yaml:2: kind: kind "Deployment" is not read by this server, ignored',
      "a.yaml:6: no apiVersion and no kind, so not an object of this server; ignored",
      'a.yaml:10: kind: kind "BackupUsr" is not read by this server, ignored; did you mean "BackupUser"?',
    ],
  });
});

test("objects that lack what makes them one", async (t) => {
  const problems = async (text: string) => lines(await load(t, { "a.yaml": text })).problems;
  t.deepEqual(await problems("kind: BackupUser\nmetadata: {name: a}\n"), [
    "a.yaml:1: apiVersion: expected backups.riotkit.org/v1alpha1, got nothing; add the field",
  ]);
  t.regex(
    (await problems("apiVersion: backups.riotkit.org/v1alpha1\n")).join(),
    /^a\.yaml:1: kind: expected BackupUser.*got nothing/,
  );
  t.deepEqual(await problems("apiVersion: v1\nkind: BackupUser\nmetadata: {name: a}\n"), [
    'a.yaml:1: apiVersion: expected backups.riotkit.org/v1alpha1 for a BackupUser, got "v1"',
  ]);
  t.regex(
    (await problems("apiVersion: v1\nkind: Secret\n")).join(),
    /^a\.yaml:1: metadata: expected a mapping with a name, got nothing/,
  );
  t.regex(
    (await problems("apiVersion: v1\nkind: Secret\nmetadata: {}\n")).join(),
    /^a\.yaml:3: metadata\.name: expected the object's name, got nothing/,
  );
  t.regex((await problems("- a\n- b\n")).join(), /^a\.yaml:1: expected a mapping with apiVersion, kind/);
  t.regex(
    (await problems("apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupUser\nmetadata: {name: a}\n")).join(),
    /^a\.yaml:1: spec: .*got nothing/,
  );
});

test("broken YAML is reported at its line, without the source", async (t) => {
  const cases: [text: string, line: number, reason: RegExp][] = [
    ["a: 1\nb: [1, hunter2\nc: 2\n", 3, /quote, bracket|something unexpected|indentation/],
    ["a: 1\n\tb: hunter2\n", 2, /tab|something unexpected|line without/],
    ["a: 1\nb: *hunter2\n", 2, /begins with \* needs quotes/],
    ["from: */30 * * * *\n", 1, /needs quotes, as one that begins with \*/],
    ["a: hunter2\na: 2\n", 2, /the same field twice/],
    ['a: "hunter2\n', 2, /quote/],
    ["a: b: hunter2\n", 1, /put the text in quotes/],
    ["a: hunter2\n  b: x\n", 1, /./],
    ["a: 'x' hunter2\n", 1, /something unexpected/],
    ["a: `hunter2`\n", 1, /put it in quotes/],
    ['a: "\\qhunter2"\n', 1, /escape/],
  ];
  for (const [text, line, reason] of cases) {
    const [first = ""] = lines(await load(t, { "a.yaml": text })).problems;
    t.true(first.startsWith(`a.yaml:${line}: not valid YAML: `), `${text} gave ${first}`);
    t.regex(first, reason);
    t.false(first.includes("hunter2"), first);
  }
});

test("anchors, aliases and merge keys work, and cannot be used to make a file explode", async (t) => {
  const anchored = await load(t, {
    "c.yaml": collection([
      "windows: &w",
      '  - &one {from: "0 1 * * *", duration: 1h}',
      "  - {<<: *one, duration: 2h}",
      "  - *one",
    ]),
    "u.yaml": user(),
  });
  t.deepEqual(lines(anchored), { problems: [], warnings: [] });
  t.deepEqual(
    anchored.configuration.collections.get("db")!.windows.map(({ durationMs }) => durationMs),
    [3_600_000, 7_200_000, 3_600_000],
  );
  const circle = await load(t, {
    "c.yaml": collection(["strategySpec: &a {<<: {<<: *a}, maxOlderCopies: 2}"]),
    "u.yaml": user(),
  });
  t.deepEqual(lines(circle), { problems: [], warnings: [] });
  const many = await load(t, { "c.yaml": collection(["windows:", "  - &a {}", ...Array(101).fill("  - *a")]) });
  t.regex(lines(many).problems.join(), /^c\.yaml:110: expected at most 100 aliases .*got 101/);
});

test("files that are too large, too deep or no text are reported", async (t) => {
  const result = await load(t, {
    "big.yaml": "#".repeat(1024 * 1024 + 1),
    "deep.yaml": "[".repeat(1024 * 1024),
    "latin.yaml": Uint8Array.of(0x61, 0x3a, 0x20, 0xe9, 0x0a),
    "u.yaml": user(),
  });
  const { problems } = lines(result);
  t.is(problems[0], "big.yaml:1: expected at most 1 MiB, got 1048577 bytes; split the file");
  t.is(problems[1], "deep.yaml:1: expected nested lists and mappings of at most 100 levels, got more");
  t.is(problems.at(-1), "latin.yaml:1: expected UTF-8 text, got other bytes; save the file as UTF-8");
  t.is(result.configuration.users.size, 1);

  const hash = "#".repeat(1024 * 1024);
  const wide = await load(t, Object.fromEntries(Array.from({ length: 18 }, (_, i) => [`${i}.yaml`, hash])));
  t.regex(lines(wide).problems.join(), /^\d+\.yaml:1: expected at most 16 MiB of files, this one and others are too/);
});

test("JSON with tabs, a byte order mark and Windows line ends", async (t) => {
  const object = {
    apiVersion: "backups.riotkit.org/v1alpha1",
    kind: "BackupUser",
    metadata: { name: "j" },
    spec: { email: "j@x", roles: [], password: HASH },
  };
  const result = await load(t, {
    "j.json": JSON.stringify(object, null, "\t"),
    "b.yaml": `\uFEFF${user([], "bom")}`,
    "w.YAML": user(["deactivated: 1"], "win").replaceAll("\n", "\r\n"),
  });
  t.deepEqual(lines(result).problems, ["w.YAML:8: spec.deactivated: expected true or false, got a number"]);
  t.deepEqual([...result.configuration.users.keys()].sort(), ["bom", "j"]);
});

test("a Kubernetes mount is read once, and links cannot go in circles", async (t) => {
  const dir = await directoryOf(t, {
    "..2026_01_01/u.yaml": user(),
    "..2026_01_01/ignored.txt": "x: [",
    ".hidden/x.yaml": "x: [",
  });
  await symlink("..2026_01_01", join(dir, "..data"));
  await symlink("..data/u.yaml", join(dir, "u.yaml"));
  await mkdir(join(dir, "sub"));
  await symlink("..", join(dir, "sub", "up"));
  await symlink("../u.yaml", join(dir, "sub", "again.yaml"));
  const result = await loadConfiguration(dir);
  t.deepEqual(lines(result), { problems: [], warnings: [] });
  t.is(result.files, 1);
  t.is(result.configuration.users.size, 1);
});

test("a List, as kubectl writes it, is read like documents of its own", async (t) => {
  const { configuration, problems, warnings } = await load(t, {
    "cluster.yaml": `apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
  - apiVersion: backups.riotkit.org/v1alpha1
    kind: BackupUser
    metadata:
      annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
      creationTimestamp: "2022-02-01T10:00:00Z"
      managedFields: []
      name: ann
      namespace: backups
      uid: x
    spec: {email: ann@example.org, roles: [usersManager], password: "${HASH}"}
    status: {}
  - apiVersion: backups.riotkit.org/v1alpha1
    kind: BackupCollection
    metadata: {name: db}
    spec: {maxBackupsCount: 0, maxOneVersionSize: 1M, maxCollectionSize: 1M}
  - {apiVersion: v1, kind: List, items: []}
`,
  });
  t.deepEqual(problems.map(formatProblem), [
    "cluster.yaml:19: items[1].spec.maxBackupsCount: expected a whole number from 1 to 1000000, got 0",
  ]);
  t.deepEqual(warnings.map(formatProblem), [
    'cluster.yaml:20: items[2].kind: kind "List" is not read by this server, ignored',
  ]);
  t.deepEqual(configuration.users.get("ann")!.roles, ["userManager"]);
});

test("links to nothing and to themselves are reported, named pipes skipped", async (t) => {
  const dir = await directoryOf(t, { "u.yaml": user() });
  await symlink("nowhere", join(dir, "gone.yaml"));
  await symlink("self.yaml", join(dir, "self.yaml"));
  await promisify(execFile)("mkfifo", [join(dir, "pipe.yaml")]);
  t.deepEqual(lines(await loadConfiguration(dir)).problems, [
    "gone.yaml:1: cannot be read: it does not exist (a link to nothing, or removed meanwhile)",
    "self.yaml:1: cannot be read: its symbolic links go round in a circle",
  ]);
});

test("a directory that is missing, a file, or empty", async (t) => {
  const dir = await directoryOf(t, { "f.yaml": user() });
  const missing = lines(await loadConfiguration(join(dir, "x"))).problems.join();
  t.regex(missing, /^the directory: expected a directory at .*\/x, got nothing there; `strongroom init` makes one$/);
  t.regex(lines(await loadConfiguration(join(dir, "f.yaml"))).problems.join(), /got a file; `strongroom init`/);
  const empty = await loadConfiguration(await temporaryFolder(t));
  t.deepEqual(lines(empty).problems, []);
  t.regex(lines(empty).warnings.join(), /^the directory: no BackupUser, so nobody can log in/);
});

test("ConfigFilesSource gives the configuration, or an error that lists the problems", async (t) => {
  const source = await ConfigFilesSource.open(join(FIXTURES, "existing"));
  t.is(source.current().users.size, 3);
  t.is(source.current(), source.current());
  t.deepEqual(source.warnings, []);

  const dir = await directoryOf(t, { "c.yaml": collection(["maxParallelUploads: 0"]) });
  const one = await t.throwsAsync(ConfigFilesSource.open(dir), { instanceOf: ConfigInvalidError });
  t.is(
    one!.message,
    `The configuration in ${dir} has a problem:\n  c.yaml:8: spec.maxParallelUploads: expected a whole number ` +
      "from 1 to 1000, got 0",
  );

  const many = await directoryOf(t, {
    "c.yaml": Array.from({ length: 25 }, (_, i) => collection(["timezone: x"], `c${i}`)).join("---\n"),
  });
  const error = await t.throwsAsync(ConfigFilesSource.open(many), { instanceOf: ConfigInvalidError });
  t.is(error!.problems.length, 25);
  t.is(error!.message.split("\n").length, 22);
  t.true(error!.message.endsWith("  and 5 more; `strongroom check-config` lists all of them"));
});

test("property: no file makes loading throw, and problems carry a place", async (t) => {
  const piece = fc.constantFrom(
    ...user().split("\n"),
    ...collection(["windows: [{from: x}]"]).split("\n"),
    "---",
    "- a",
    "  - b: [",
    "&a",
    "*a",
    '"',
    "<<: *a",
    "spec: null",
    "metadata: []",
    "\t",
    "? x",
    "!!binary x",
    "data: {a: b}",
    "kind: Secret",
    "apiVersion: v1",
  );
  await t.notThrowsAsync(
    fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 25 }), async (pieces) => {
        const result = await load(t, { "a.yaml": pieces.join("\n") });
        for (const problem of [...result.problems, ...result.warnings]) {
          if (problem.line < 1 || problem.line > pieces.length + 1 || problem.reason === "")
            throw new Error(formatProblem(problem));
        }
      }),
      { numRuns: 300 },
    ),
  );
});

test("a user that is there for its access keys needs no password of its own", async (t) => {
  const user = (key: string) => `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupUser
metadata: {name: ann}
spec: {email: a@example.org, roles: [], accessKeys: [{name: cron, objects: []${key}}]}
`;
  const warned = async (key: string) => lines(await load(t, { "u.yaml": user(key) })).warnings.join();
  t.is(await warned(`, password: "${HASH}"`), "");
  t.regex(await warned(""), /this user has no password/);
});

test("the same problem at many places is one line", (t) => {
  const at = (file: string, line: number, path: string, reason = "wrong") =>
    ({ file, line, path, reason, severity: "error" }) as const;
  const many = [1, 2, 3, 4, 5, 6].map((line) => at("a.yaml", line, `spec.x[${line}].y`));
  t.deepEqual(formatFolded([...many, at("b.yaml", 1, "", "other")]), [
    "error: a.yaml:1: spec.x[1].y: wrong; the same at a.yaml:2, a.yaml:3, a.yaml:4, 2 more",
    "error: b.yaml:1: other",
  ]);
});

test("a file with a Secret that everybody may read is warned of, unless a folder keeps them out", async (t) => {
  const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {}\n";
  const dir = await directoryOf(t, { "open.yaml": secret, "closed.yaml": secret.replace("{name: s}", "{name: c}") });
  await chmod(join(dir, "open.yaml"), 0o644);
  await chmod(join(dir, "closed.yaml"), 0o640);
  const { secretFiles } = await loadConfiguration(dir);
  t.deepEqual([...secretFiles].sort(), ["closed.yaml", "open.yaml"]);
  await chmod(dir, 0o700);
  t.deepEqual(await readableSecrets(dir, secretFiles), []);
  await chmod(dir, 0o755);
  let closed = false;
  for (let folder = dirname(dir); folder !== "/"; folder = dirname(folder))
    closed ||= ((await stat(folder)).mode & 0o001) === 0;
  const found = await readableSecrets(dir, secretFiles);
  t.deepEqual(
    found.map(({ file, severity }) => [file, severity]),
    closed ? [] : [["open.yaml", "warning"]],
  );
  if (!closed) t.regex(found[0]!.reason, /got mode 0644/);
});
