import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import argon2 from "argon2";
import test from "ava";
import {
  type InitConfigurationInput,
  InitRefusedError,
  initConfiguration,
} from "../src/adapters/config-files/first-configuration.ts";
import { ConfigFilesSource, loadConfiguration } from "../src/adapters/config-files/source.ts";

/** The least cost argon2 allows, so that tests are quick. */
function hashPassword(password: string): Promise<string> {
  return argon2.hash(password, { type: argon2.argon2id, memoryCost: 8, timeCost: 1, parallelism: 1 });
}

function init(dir: string, more: Partial<InitConfigurationInput> = {}) {
  return initConfiguration({ dir, hashPassword, randomBytes, ...more });
}

test("what init writes loads without a word, and the password opens it", async (t) => {
  const dir = join(await temporaryFolder(t), "a", "config");
  const { files, adminName, password, collectionName } = await init(dir);
  t.deepEqual(files, [
    "strongroom/backups.riotkit.org/v1alpha1/backupusers/admin.yaml",
    "strongroom/backups.riotkit.org/v1alpha1/backupcollections/default.yaml",
    "strongroom/v1/secrets/strongroom-passwords.yaml",
  ]);
  t.is(adminName, "admin");
  t.is(collectionName, "default");

  const { configuration, problems, warnings } = await loadConfiguration(dir);
  t.deepEqual({ problems, warnings }, { problems: [], warnings: [] });
  const admin = configuration.users.get("admin")!;
  t.deepEqual(admin.roles, ["systemAdmin"]);
  t.true(await argon2.verify(admin.passwordHash!, password));
  t.deepEqual(configuration.collections.get("default"), {
    name: "default",
    description: "First collection",
    organization: "",
    filenameTemplate: `default-$\{version}`,
    maxBackupsCount: 7,
    maxOneVersionSize: 10n * 2n ** 30n,
    maxCollectionSize: 100n * 2n ** 30n,
    maxParallelUploads: 1,
    windows: [],
    timezone: "UTC",
    rotation: { strategy: "fifo" },
    maxAgeMs: 36 * 3_600_000,
    minRetentionMs: 6 * 3_600_000,
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
    healthSecretSha256: undefined,
    accessControl: [],
  });
  t.is((await ConfigFilesSource.open(dir)).current().users.size, 1);
});

test("names and limits are as given, also names that YAML would read as something else", async (t) => {
  const dir = await temporaryFolder(t);
  const limits = { maxBackupsCount: 3, maxOneVersionSize: "1.5G", maxCollectionSize: "5G" };
  await init(dir, { adminName: "true", collectionName: "12", limits });
  const { configuration, problems, warnings } = await loadConfiguration(dir);
  t.deepEqual({ problems, warnings }, { problems: [], warnings: [] });
  t.true(configuration.users.has("true"));
  const { maxBackupsCount, maxOneVersionSize, maxCollectionSize, filenameTemplate } =
    configuration.collections.get("12")!;
  t.deepEqual(
    { maxBackupsCount, maxOneVersionSize, maxCollectionSize, filenameTemplate },
    {
      maxBackupsCount: 3,
      maxOneVersionSize: 1_610_612_736n,
      maxCollectionSize: 5_368_709_120n,
      filenameTemplate: `12-$\{version}`,
    },
  );
});

test("every option that is commented out loads when the comment sign is taken away", async (t) => {
  const dir = await temporaryFolder(t);
  const { files } = await init(dir);
  for (const file of files) {
    const path = join(dir, file);
    const text = await readFile(path, "utf8");
    // Options stand in the comments as `# name:` with what belongs to them; sentences have no such form.
    await writeFile(path, text.replace(/^( +)# (?=[a-zA-Z]+:(?: |$)| {2}|- )/gm, "$1"));
  }
  const { configuration, problems, warnings } = await loadConfiguration(dir);
  t.deepEqual(
    problems.map(({ path }) => path),
    [
      // The example key is no key, and the examples' Secrets are not there.
      "spec.recipients[0]",
      "spec.healthSecretRef.name",
      "spec.accessKeys[0].passwordFromRef.entry",
    ],
  );
  t.deepEqual(
    warnings.map(({ path }) => path),
    ["spec.accessControl[0].userName", "spec.accessKeys[0].objects[0].name"],
  );
  t.is(configuration.users.size, 0);
});

test("directories are for the owner alone, and so is the Secret", async (t) => {
  const dir = join(await temporaryFolder(t), "config");
  const { files } = await init(dir);
  const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);
  t.is(await mode(dir), "700");
  for (const file of files) {
    t.is(await mode(join(dir, file)), file.includes("/secrets/") ? "600" : "644");
    for (let parent = dirname(file); parent !== "."; parent = dirname(parent))
      t.is(await mode(join(dir, parent)), "700");
  }
});

test("the password is long, unambiguous, fairly drawn and written nowhere", async (t) => {
  const dir = await temporaryFolder(t);
  const { password, files } = await init(dir);
  t.regex(password, /^[abcdefghjkmnpqrstuvwxyz23456789]{26}$/);
  for (const file of files) t.false((await readFile(join(dir, file), "utf8")).includes(password));

  // 248 to 255 would favour the first letters, so they are thrown away; 247 is the last of the alphabet.
  const bytes = [255, 0, 248, 30, 31, 247];
  let calls = 0;
  const source = (count: number) => Uint8Array.from({ length: count }, () => bytes[calls++ % bytes.length]!);
  const other = await init(join(dir, "other"), { randomBytes: source });
  t.is(other.password, "a9a9".repeat(7).slice(0, 26));
  t.not((await init(join(dir, "third"))).password, password);
});

test("a directory that is not empty, or a file, is left alone", async (t) => {
  const dir = await temporaryFolder(t);
  await writeFile(join(dir, "mine"), "x");
  const full = await t.throwsAsync(init(dir), { instanceOf: InitRefusedError });
  t.is(
    full!.message,
    `Expected an empty or missing directory, but ${dir} already holds mine. Choose another directory, ` +
      "or check the configuration that is there with `strongroom check-config`.",
  );
  t.deepEqual(await readdir(dir), ["mine"]);
  await t.throwsAsync(init(join(dir, "mine")), { instanceOf: InitRefusedError, message: /got a file\.$/ });
  await mkdir(join(dir, "empty"));
  await t.notThrowsAsync(init(join(dir, "empty")));
  await t.throwsAsync(init(join(dir, "empty")), { instanceOf: InitRefusedError });
});

test("of two at once one wins, and its files stay", async (t) => {
  const dir = join(await temporaryFolder(t), "config");
  const results = await Promise.allSettled([init(dir), init(dir)]);
  const [winner, ...others] = results.filter((result) => result.status === "fulfilled");
  t.is(others.length, 0);
  const { configuration, problems } = await loadConfiguration(dir);
  t.deepEqual(problems, []);
  t.true(await argon2.verify(configuration.users.get("admin")!.passwordHash!, winner!.value.password));
});

test("nothing is left when it cannot be finished", async (t) => {
  const dir = await temporaryFolder(t);
  await t.throwsAsync(init(dir, { hashPassword: () => Promise.reject(new Error("no memory")) }), {
    message: "no memory",
  });
  t.deepEqual(await readdir(dir), []);
});

const refused: [name: string, input: Partial<InitConfigurationInput>, message: RegExp][] = [
  ["user name with a dollar", { adminName: "a$b" }, /^The administrator's name: expected .*got "a\$b"\.$/],
  ["user name that would leave the directory", { adminName: "../x" }, /got "\.\.\/x"\.$/],
  ["user name with a line end", { adminName: "a\nroles: []" }, /The administrator's name/],
  ["empty collection name", { collectionName: "" }, /^The collection's name: /],
  ["collection name in upper case", { collectionName: "DB" }, /got "DB"\.$/],
  ["count", { limits: { maxBackupsCount: 0 } }, /^maxBackupsCount: expected a whole number above zero, got 0\.$/],
  ["size", { limits: { maxOneVersionSize: "big" } }, /^maxOneVersionSize: expected a size .*got "big"\.$/],
  ["size of zero", { limits: { maxOneVersionSize: "0" } }, /^maxCollectionSize: .*both above zero/],
  [
    "hard limit below the copies",
    { limits: { maxCollectionSize: "69G" } },
    /expected at least .*\(70 GiB\).*got 69 GiB\.$/,
  ],
];

for (const [name, input, message] of refused) {
  test(`refused: ${name}`, async (t) => {
    const dir = join(await temporaryFolder(t), "config");
    await t.throwsAsync(init(dir, input), { instanceOf: InitRefusedError, message });
    await t.throwsAsync(stat(dir), { code: "ENOENT" });
  });
}
