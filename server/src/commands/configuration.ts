/** Commands of an operator that work on files of the configuration rather than on a running server. */
import { resolve } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { option } from "@strongroom/command-line/option";
import { PASSWORD, SHARED } from "@strongroom/command-line/shared-options";
import type { OptionValues } from "@strongroom/command-line/values";
import { quantity } from "@strongroom/protocol/quantity";
import { ValueError } from "@strongroom/protocol/sizes";
import type { OperatorCommand, OperatorInvocation } from "./context.ts";
import { DATA } from "./options.ts";
import { configDir } from "./settings.ts";

const admin = option({ name: "admin", value: "name", defaultText: "admin", help: "name of the first administrator" });

/** `strongroom init`: makes a first configuration with an administrator and a collection. */
export const init: OperatorCommand = {
  name: "init",
  summary: "write a first configuration for a server",
  args: [["[folder]", "folder to make; without it as --config says"]],
  options: [SHARED.collection, admin, DATA.config, DATA.data, SHARED.envFile],
  examples: [
    ["strongroom init && strongroom serve", "a first server, with an administrator and a collection to try"],
    ["strongroom init /etc/strongroom --collection pg-main --admin alice", "with names of your own"],
  ],
  run: runInit,
};

/** `strongroom check-config`: validates a directory without a server. Exit code 0 for valid, 1 for problems. */
export const checkConfig: OperatorCommand = {
  name: "check-config",
  summary: "validate a folder of configuration without a server",
  details: "Names the file, line and path of everything that is wrong; the exit code is 1 then.",
  args: [["[folder]", "folder to look at; without it as --config says"]],
  options: [DATA.config, DATA.data, SHARED.envFile, SHARED.json],
  examples: [
    ["strongroom check-config /etc/strongroom", "before it is deployed"],
    ["strongroom check-config /etc/strongroom --json", "for a pipeline"],
  ],
  run: runCheckConfig,
};

/** `strongroom hash-password`: prints the hash for a configuration file. */
export const hashPassword: OperatorCommand = {
  name: "hash-password",
  summary: "print the hash of a password, for a BackupUser or a Secret",
  options: [SHARED.passwordFile, SHARED.passwordStdin],
  secrets: [PASSWORD],
  examples: [
    ["strongroom hash-password", "asks for the password twice"],
    ["pass show strongroom | strongroom hash-password", "from a password store"],
  ],
  run: async ({ context, askPassword }) => {
    const password = await askPassword({ question: "Password: ", twice: true, fromPipe: true });
    const { Argon2Hasher } = await import("../adapters/argon2/argon2-hasher.ts");
    context.stdout.write(`${await new Argon2Hasher().hash(password)}\n`);
    return EXIT.ok;
  },
};

async function runInit({ args, values, context }: OperatorInvocation): Promise<ExitCode> {
  const dir = folderOf(args[0], values);
  const [{ randomBytes }, { Argon2Hasher }, { InitRefusedError, initConfiguration }] = await Promise.all([
    import("node:crypto"),
    import("../adapters/argon2/argon2-hasher.ts"),
    import("../adapters/config-files/first-configuration.ts"),
  ]);
  const [adminName, collectionName] = [values.get(admin), values.get(SHARED.collection)];
  const hasher = new Argon2Hasher();
  try {
    const made = await initConfiguration({
      dir,
      ...(adminName === undefined ? {} : { adminName }),
      ...(collectionName === undefined ? {} : { collectionName }),
      hashPassword: async (password) => await hasher.hash(password),
      randomBytes,
    });
    const data = values.get(DATA.data);
    // The folder with `config` in it is where `serve` looks by itself.
    const next = resolve(dir) === resolve(data, "config") ? dataFlag(values) : ` --config ${dir} --data DIR`;
    context.stdout.write(`Made a first configuration in ${resolve(dir)}:
${made.files.map((file) => `  ${file}`).join("\n")}

  user        ${made.adminName}
  password    ${made.password}
  collection  ${made.collectionName}

The password is shown only now; the file has its hash. Next:
  strongroom serve${next}
  strongroom login --username ${made.adminName}
`);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof InitRefusedError || error instanceof ValueError)) throw error;
    throw new UsageError(error.message, { cause: error });
  }
}

async function runCheckConfig({ args, values, context }: OperatorInvocation): Promise<ExitCode> {
  const dir = folderOf(args[0], values);
  const [{ loadConfiguration }, { readableSecrets }, { formatFolded }] = await Promise.all([
    import("../adapters/config-files/source.ts"),
    import("../adapters/config-files/secret-modes.ts"),
    import("../objects/problem.ts"),
  ]);
  const { configuration, files, problems, secretFiles, ...loaded } = await loadConfiguration(dir);
  const warnings = [...loaded.warnings, ...(await readableSecrets(dir, secretFiles))];
  const { users, collections, organizations } = configuration;
  const counts = { files, users: users.size, collections: collections.size, organizations: organizations.size };
  const nothing = "expected files with configuration objects, got none; is it the right folder?";
  if (files === 0) problems.push({ severity: "error", file: ".", line: 1, path: "", reason: nothing });
  const valid = problems.length === 0;
  if (values.get(SHARED.json)) {
    context.stdout.write(`${JSON.stringify({ valid, ...counts, problems, warnings }, null, 2)}\n`);
  } else {
    // Errors first: they are what keeps the configuration from being used.
    for (const line of [...formatFolded(problems), ...formatFolded(warnings)]) context.stderr.write(`${line}\n`);
    const found =
      `${quantity(counts.users, "user")}, ${quantity(counts.collections, "collection")}, ` +
      `${quantity(counts.organizations, "organization")} in ${quantity(counts.files, "file")}`;
    if (valid) context.stdout.write(`${dir} is valid: ${found}\n`);
    else context.stderr.write(`${dir} is not valid: ${quantity(problems.length, "problem")}; valid so far: ${found}\n`);
  }
  return valid ? EXIT.ok : EXIT.unexpected;
}

/** ` --data DIR` where the folder of data is not the default one. */
function dataFlag(values: OptionValues): string {
  const data = values.get(DATA.data);
  return resolve(data) === resolve("strongroom-data") ? "" : ` --data ${data}`;
}

/** The folder of the configuration: the argument, else as `serve` has it. @throws UsageError when two are given */
function folderOf(argument: string | undefined, values: OptionValues): string {
  if (argument !== undefined && values.source(DATA.config) === "flag")
    throw new UsageError("the folder is given as an argument and as --config; give one of them");
  return argument ?? configDir(values);
}
