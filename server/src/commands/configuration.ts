/**
 * Commands of an operator that work on files rather than on a running server. The CLI loads this module only for them.
 */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import type { Writable } from "node:stream";
import { ValueError } from "@strongroom/protocol/sizes";
import { Argon2Hasher } from "../adapters/argon2/argon2-hasher.ts";
import { InitRefusedError, initConfiguration } from "../adapters/config-files/first-configuration.ts";
import { loadConfiguration } from "../adapters/config-files/source.ts";
import { formatProblem } from "../objects/problem.ts";

/** Where a command writes. */
export interface CommandIo {
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** `strongroom init`: makes a first configuration with an admin and a collection. Returns the exit code. */
export async function initCommand(
  options: { dir: string; collection?: string | undefined; admin?: string | undefined },
  io: CommandIo,
): Promise<number> {
  const hasher = new Argon2Hasher();
  try {
    const made = await initConfiguration({
      dir: options.dir,
      ...(options.admin === undefined ? {} : { adminName: options.admin }),
      ...(options.collection === undefined ? {} : { collectionName: options.collection }),
      hashPassword: async (password) => await hasher.hash(password),
      randomBytes,
    });
    const isDefault = resolve(options.dir) === resolve("strongroom-data/config");
    io.stdout.write(`Made a first configuration in ${resolve(options.dir)}:
${made.files.map((file) => `  ${file}`).join("\n")}

  user        ${made.adminName}
  password    ${made.password}
  collection  ${made.collectionName}

The password is shown only now; the file has its hash. Next:
  strongroom serve${isDefault ? "" : ` --config ${options.dir} --data DIR`}
  strongroom login --username ${made.adminName}
`);
    return 0;
  } catch (error) {
    if (!(error instanceof InitRefusedError || error instanceof ValueError)) throw error;
    io.stderr.write(`strongroom init: ${error.message}\n`);
    return 2;
  }
}

/** `strongroom check-config`: validates a directory without a server. Returns the exit code: 0 for valid, 1 for problems. */
export async function checkConfigCommand(
  options: { dir: string; json?: boolean | undefined },
  io: CommandIo,
): Promise<number> {
  const result = await loadConfiguration(options.dir);
  const { users, collections, organizations } = result.configuration;
  const counts = {
    files: result.files,
    users: users.size,
    collections: collections.size,
    organizations: organizations.size,
  };
  if (options.json === true) {
    io.stdout.write(
      `${JSON.stringify({ valid: result.problems.length === 0, ...counts, problems: result.problems, warnings: result.warnings }, null, 2)}\n`,
    );
  } else {
    for (const warning of result.warnings) io.stderr.write(`warning: ${formatProblem(warning)}\n`);
    for (const problem of result.problems) io.stderr.write(`error: ${formatProblem(problem)}\n`);
    const found = `${counts.users} users, ${counts.collections} collections, ${counts.organizations} organizations in ${counts.files} files`;
    if (result.problems.length === 0) io.stdout.write(`${options.dir} is valid: ${found}\n`);
    else io.stderr.write(`${options.dir} is not valid: ${result.problems.length} problem(s); valid so far: ${found}\n`);
  }
  return result.problems.length === 0 ? 0 : 1;
}

/** `strongroom hash-password`: prints the hash for a configuration file. Returns the exit code. */
export async function hashPasswordCommand(options: { password: string }, io: CommandIo): Promise<number> {
  if (options.password === "") {
    io.stderr.write("strongroom hash-password: the password is empty\n");
    return 2;
  }
  io.stdout.write(`${await new Argon2Hasher().hash(options.password)}\n`);
  return 0;
}
