/** An installation of Strongroom for a test, and a person who uses it through the real CLI. */
import type { ExecutionContext } from "ava";
import { type Outcome, run, STRONGROOM } from "./processes.ts";

/**
 * Makes a configuration with `strongroom init`, with one collection. Returns the password of `admin`. @throws Error
 * with what `init` said when it failed.
 */
export async function initConfiguration(directory: string, collection = "default"): Promise<string> {
  const { code, stdout, stderr } = await run(STRONGROOM, ["init", directory, "--collection", collection]);
  const password = /password\s+(\S+)/.exec(stdout.toString())?.[1];
  if (code !== 0 || password === undefined) throw new Error(`strongroom init ended with ${code}: ${stderr}`);
  return password;
}

/**
 * A collection as a document of the configuration. @param spec - in YAML's flow style, such as
 * `maxBackupsCount: 3, maxOneVersionSize: 1G`.
 */
export function collectionDocument(name: string, spec: string): string {
  return `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: { name: ${name} }
spec: { ${spec} }
`;
}

/** The environment of a person: a home folder, where the session is kept, and the address of the server. */
export function personEnvironment(home: string, url: string): Record<string, string> {
  return { HOME: home, XDG_CONFIG_HOME: home, STRONGROOM_URL: url };
}

/** Arguments of a login whose password comes from stdin. */
export const LOGIN = ["login", "--username", "admin", "--password-stdin"] as const;

/** The same outcome, of a command that must have succeeded. */
export function succeeded(t: ExecutionContext, outcome: Outcome): Outcome {
  t.is(outcome.code, 0, `${outcome.stderr}${outcome.stdout.subarray(0, 2000)}`);
  return outcome;
}
