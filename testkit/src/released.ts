/**
 * The last release of Strongroom, kept in `testkit/fixtures/release/`: its program, and an installation that it made.
 * What upgrades do is tested against it. How it is made, and when again: the README beside it.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { zstdDecompressSync } from "node:zlib";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Folder of the kept release. */
export const RELEASE_FOLDER = fileURLToPath(new URL("../fixtures/release", import.meta.url));

/** What the release was, and what it made. */
export interface ReleaseFacts {
  /** The commit it was built of, as in the history. */
  readonly commit: string;
  readonly version: string;
  /** Tag of its newest migration. */
  readonly migration: string;
  /** Major version of the PostgreSQL in its embedded database. */
  readonly postgresMajor: number;
  /** Packages of others that it ran with, by name. */
  readonly packages: Readonly<Record<string, string>>;
  /** The password of `admin` in the kept installation. */
  readonly password: string;
  /** Versions in the kept installation, in the order of collection and number. */
  readonly versions: readonly ReleasedVersion[];
}

/** A version that the release stored. */
export interface ReleasedVersion {
  readonly collection: string;
  readonly number: number;
  readonly state: "live" | "removed" | "purged";
  readonly held: boolean;
  readonly damaged: boolean;
  /** SHA-256 of the dump, in hexadecimal. */
  readonly sha256: string;
}

/** Reads what is known of the kept release. */
export async function releaseFacts(): Promise<ReleaseFacts> {
  return JSON.parse(await readFile(join(RELEASE_FOLDER, "release.json"), "utf8")) as ReleaseFacts;
}

/**
 * Unpacks the kept program into a folder. Its own sources are those of the release, to the letter; packages of others
 * are those of this checkout. Returns the path of its `strongroom`.
 */
export async function unpackReleasedProgram(folder: string): Promise<string> {
  await unpack("program", folder);
  const modules = join(ROOT, "node_modules");
  const own = join(folder, "node_modules");
  await mkdir(join(own, "@strongroom"), { recursive: true });
  for (const name of await readdir(modules)) {
    if (name !== "@strongroom") await symlink(join(modules, name), join(own, name));
  }
  const { workspaces } = JSON.parse(await readFile(join(folder, "package.json"), "utf8")) as { workspaces: string[] };
  const unpacked = await readdir(folder);
  for (const name of workspaces.filter((each) => unpacked.includes(each))) {
    await symlink(join(folder, name), join(own, "@strongroom", name));
  }
  return join(folder, "bin/strongroom");
}

/**
 * Unpacks the kept installation into a folder: `data/` with configuration, embedded database and storage, and the age
 * key `test.age.key` that opens its dumps.
 */
export async function unpackReleasedInstallation(folder: string): Promise<void> {
  await unpack("installation", folder);
}

async function unpack(name: string, folder: string): Promise<void> {
  const archive = zstdDecompressSync(await readFile(join(RELEASE_FOLDER, `${name}.tar.zst`)));
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const tar = spawn("tar", ["-x", "--no-same-owner", "-C", folder], { stdio: ["pipe", "ignore", "pipe"] });
  let said = "";
  tar.stderr.on("data", (chunk: Buffer) => {
    said += chunk;
  });
  tar.stdin.on("error", () => {});
  tar.stdin.end(archive);
  const [code] = (await once(tar, "close")) as [number | null];
  if (code !== 0) throw new Error(`${name} of the release could not be unpacked: ${said}`);
}
