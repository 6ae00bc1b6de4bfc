import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeFolder } from "@strongroom/protocol/make-folder";
import { formatSize, parseSize, ValueError } from "@strongroom/protocol/sizes";
import { newPassword } from "../../domain/new-password.ts";

/** Limits of the first collection, in the form of the configuration. */
export interface InitialLimits {
  /** Copies to keep; 7 unless given. */
  readonly maxBackupsCount?: number;
  /** Soft limit of one version; `10G` unless given. */
  readonly maxOneVersionSize?: string;
  /** Hard limit of all versions together; `100G` unless given. */
  readonly maxCollectionSize?: string;
}

/** What {@link initConfiguration} needs. */
export interface InitConfigurationInput {
  /** Directory to fill; made when it is missing, refused when it is not empty. */
  readonly dir: string;
  /** Name of the first user; `admin` unless given. */
  readonly adminName?: string;
  /** Name of the first collection; `default` unless given. */
  readonly collectionName?: string;
  /** Makes the PHC-encoded argon2id hash of a password. */
  readonly hashPassword: (password: string) => Promise<string>;
  /** Gives so many unpredictable bytes. */
  readonly randomBytes: (count: number) => Uint8Array;
  readonly limits?: InitialLimits;
}

/** What {@link initConfiguration} made. The password stands nowhere else: show it once. */
export interface InitConfigurationResult {
  /** Written files, relative to the directory. */
  readonly files: string[];
  readonly adminName: string;
  readonly password: string;
  readonly collectionName: string;
}

/** A configuration cannot be made as asked; nothing was changed. The message says what to do. */
export class InitRefusedError extends Error {
  override name = "InitRefusedError";
}

/** A week; longer protection is a decision of somebody who knows the limits. */
const MOST_RETENTION_HOURS = 7 * 24;
/**
 * Narrower than what the configuration allows: a label as Kubernetes names objects, so that the files can be applied
 * there too. It also needs no quotes in YAML, unless it reads as a number or a word such as `true`, which the
 * templates' quotes take care of.
 */
function checkName(what: string, name: string): void {
  if (/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) return;
  throw new InitRefusedError(
    `The ${what}'s name: expected 1 to 63 lower-case letters, digits and "-", not beginning or ending with ` +
      `"-", got ${JSON.stringify(name)}.`,
  );
}

function checkLimits({ maxBackupsCount, maxOneVersionSize, maxCollectionSize }: Required<InitialLimits>): void {
  if (!Number.isSafeInteger(maxBackupsCount) || maxBackupsCount < 1) {
    throw new InitRefusedError(`maxBackupsCount: expected a whole number above zero, got ${maxBackupsCount}.`);
  }
  const size = (name: string, text: string) => {
    try {
      return parseSize(text);
    } catch (error) {
      if (error instanceof ValueError) throw new InitRefusedError(`${name}: ${error.message}.`, { cause: error });
      throw error;
    }
  };
  const needed = BigInt(maxBackupsCount) * size("maxOneVersionSize", maxOneVersionSize);
  const most = size("maxCollectionSize", maxCollectionSize);
  if (needed > most || needed === 0n) {
    throw new InitRefusedError(
      `maxCollectionSize: expected at least maxBackupsCount * maxOneVersionSize (${formatSize(needed)}) and ` +
        `both above zero, got ${formatSize(most)}.`,
    );
  }
}

async function checkDirectory(dir: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return;
    const found = code === "ENOTDIR" ? "a file" : `one that cannot be read (${code})`;
    throw new InitRefusedError(`Expected an empty or missing directory at ${dir}, got ${found}.`, { cause: error });
  }
  if (names.length > 0) {
    throw new InitRefusedError(
      `Expected an empty or missing directory, but ${dir} already holds ` +
        `${names.length === 1 ? names[0] : `${names.length} entries`}. ` +
        "Choose another directory, or check the configuration that is there with `strongroom check-config`.",
    );
  }
}

function userFile(name: string): string {
  return `# A person or program that logs in. Further users: copy this file and change the names.
---
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupUser
metadata:
  name: "${name}"
spec:
  email: "${name}@localhost"
  about: "System administrator"

  # Tenant this user belongs to; free text.
  organization: ""

  # true locks the user out, also sessions that are open, when the server has read it.
  deactivated: false

  # Where the password's hash is: an entry of a Secret. \`strongroom hash-password\` makes a hash.
  passwordFromRef:
    name: strongroom-passwords
    entry: "${name}"

  # Addresses and ranges this user may come from; anywhere when left out. Enforced at login and on every request.
  # restrictByIP:
  #   - 192.0.2.7
  #   - 10.0.0.0/8
  #   - 2001:db8::/32

  # Roles for the whole system: systemAdmin, userManager, collectionManager, backupUploader, backupDownloader,
  # uploadsAnytime. To grant a role for one collection only, leave it out here and name the user in that collection's
  # accessControl.
  roles:
    - systemAdmin

  # Further passwords with fewer rights, for machines. This one would log in as ${name}$nightly.
  # accessKeys:
  #   - name: nightly
  #     passwordFromRef:
  #       name: strongroom-passwords
  #       entry: ${name}-nightly
  #     objects:
  #       - name: some-collection
  #         type: collection
  #         roles: [backupUploader]
`;
}

/**
 * The longest protection by which hourly backups always find a place: at most `maxBackupsCount - 1` versions are
 * published within it, and that many are kept beside the next one in any case.
 */
function retention(maxBackupsCount: number): string {
  const hours = Math.min(maxBackupsCount - 1, MOST_RETENTION_HOURS);
  return hours === 0 ? "# minRetention: 1h" : `minRetention: ${hours}h`;
}

function collectionFile(name: string, admin: string, limits: Required<InitialLimits>): string {
  return `# A named series of backups of one thing. Further collections: copy this file and change the name.
---
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata:
  name: "${name}"
spec:
  description: "First collection"

  # Name of a downloaded file; \${version} stands for the version's number.
  filenameTemplate: "${name}-\${version}"

  # How many copies are kept. When one more is published, the oldest is removed.
  maxBackupsCount: ${limits.maxBackupsCount}

  # Sizes are bytes, or K, M, G, T in powers of 1024.
  # Soft limit of one version. A larger one is accepted while extra space
  # (maxCollectionSize - maxBackupsCount * maxOneVersionSize) lasts, and turns health to a warning.
  maxOneVersionSize: "${limits.maxOneVersionSize}"
  # Hard limit of all versions together.
  maxCollectionSize: "${limits.maxCollectionSize}"

  # How copies rotate; fifo keeps the newest maxBackupsCount.
  strategyName: fifo
  strategySpec: {}

  # How many uploads may be open at once.
  maxParallelUploads: 1

  # What a dump must be encrypted with: openpgp, age or any-of (both). Plaintext is always refused.
  encryption: openpgp

  # OpenPGP public keys (gpg --armor --export) a dump must be encrypted to; any key when left out.
  # recipients:
  #   - |
  #     -----BEGIN PGP PUBLIC KEY BLOCK-----
  #     ...
  #     -----END PGP PUBLIC KEY BLOCK-----

  # Health fails when the newest version is older than this (durations: 45m, 36h, 7d, 2w).
  maxAge: 36h

  # A published version is protected from removal for this long, also from rotation. No more versions than
  # maxBackupsCount - 1 should come within it, else protected ones can leave no room for the next backup: this is right
  # for one every hour. For one a day write days in place of hours.
  ${retention(limits.maxBackupsCount)}

  # Health warns when the newest version is far smaller than those before it. With this nothing is rotated out until
  # somebody has looked (strongroom confirm).
  # rotationGuard: shrunk

  # When uploads may begin (cron: minute hour day month weekday); always when left out. Health fails when a
  # window passed without a backup.
  # windows:
  #   - from: "0 1 * * *"
  #     duration: 3h
  # timezone: Europe/Warsaw

  # Lets monitoring ask for health without a login: SHA-256 of a secret (echo -n secret | sha256sum) in an
  # entry of a Secret.
  # healthSecretRef:
  #   name: strongroom-health
  #   entry: ${name}

  # Roles of users for this collection alone; ${admin} may do everything without being named here.
  # accessControl:
  #   - userName: some-user
  #     roles: [backupUploader, backupDownloader]
`;
}

function secretFile(name: string, hash: string): string {
  return `# Password hashes (argon2id) in base64, one entry for each user and access key. Keep this file readable by
# the server alone.
# \`strongroom hash-password\` makes a hash; as a value it is fine as it is or in base64.
---
apiVersion: v1
kind: Secret
metadata:
  name: strongroom-passwords
type: Opaque
data:
  "${name}": "${Buffer.from(hash).toString("base64")}"
`;
}

/**
 * Fills a directory with a first configuration: a user with the role systemAdmin and a new random password, a
 * collection, and a Secret with the password's hash. The layout is that of existing installations. Directories it makes
 * get mode 0700, the Secret 0600, the rest 0644.
 *
 * The password itself is written nowhere. When writing fails, what was written is taken away again.
 * @throws {InitRefusedError} when the directory is not empty, or a name or limit is not allowed.
 */
export async function initConfiguration(input: InitConfigurationInput): Promise<InitConfigurationResult> {
  const { dir, adminName = "admin", collectionName = "default", hashPassword, randomBytes } = input;
  const limits = {
    maxBackupsCount: input.limits?.maxBackupsCount ?? 7,
    maxOneVersionSize: input.limits?.maxOneVersionSize ?? "10G",
    maxCollectionSize: input.limits?.maxCollectionSize ?? "100G",
  };
  checkName("administrator", adminName);
  checkName("collection", collectionName);
  checkLimits(limits);
  await checkDirectory(dir);

  const password = newPassword(randomBytes);
  const objects = "strongroom/backups.riotkit.org/v1alpha1";
  const files = new Map([
    [`${objects}/backupusers/${adminName}.yaml`, { text: userFile(adminName), mode: 0o644 }],
    [
      `${objects}/backupcollections/${collectionName}.yaml`,
      { text: collectionFile(collectionName, adminName, limits), mode: 0o644 },
    ],
    [
      "strongroom/v1/secrets/strongroom-passwords.yaml",
      { text: secretFile(adminName, await hashPassword(password)), mode: 0o600 },
    ],
  ]);
  await makeFolder(dir, 0o700);
  // Not recursive: it fails when another call was faster, so that everything below this directory is of this one.
  await mkdir(join(dir, "strongroom"), { mode: 0o700 });
  try {
    for (const [file, { text, mode }] of files) {
      const path = join(dir, file);
      await makeFolder(dirname(path), 0o700);
      await writeFile(path, text, { flag: "wx", mode });
    }
  } catch (error) {
    await rm(join(dir, "strongroom"), { recursive: true, force: true });
    throw error;
  }
  return { files: [...files.keys()], adminName, password, collectionName };
}
