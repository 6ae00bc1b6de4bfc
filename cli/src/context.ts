import type { EventEmitter } from "node:events";
import { createWriteStream, fstatSync } from "node:fs";
import { homedir, hostname as osHostname, userInfo } from "node:os";
import { isAbsolute } from "node:path";
import type { Readable, Writable } from "node:stream";
import type { Secret } from "@strongroom/command-line/option";
import { SECRETS } from "./options.ts";

/** The SDK as a module; loaded when a command needs it, so that `--help` is quick. */
export type Sdk = typeof import("@strongroom/client-sdk");

/** Standard input, perhaps a terminal. */
export type Input = Readable & { isTTY?: boolean; setRawMode?(on: boolean): unknown };

/** Standard output or error, perhaps a terminal. */
export type Screen = Writable & { isTTY?: boolean; columns?: number };

/** Everything a command takes from outside, so that a test can stand in for it. */
export interface Context {
  /** The environment with secrets. */
  readonly env: NodeJS.ProcessEnv;
  /** The environment for child processes, without secrets. */
  readonly childEnv: NodeJS.ProcessEnv;
  /** The same with more variables, which win; libraries that read the process's own environment see them too. */
  readonly withVariables: (variables: Readonly<Record<string, string>>) => Context;
  readonly stdin: Input;
  readonly stdout: Screen;
  readonly stderr: Screen;
  readonly platform: NodeJS.Platform;
  /** The user's folder, an absolute path; empty where neither HOME nor the system names one. */
  readonly home: string;
  readonly hostname: string;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly sdk: () => Promise<Sdk>;
  /** Sends SIGINT, SIGTERM and SIGHUP as events. */
  readonly signals: EventEmitter;
  /** Ends the process at once. */
  readonly exit: (code: number) => void;
  /**
   * Called when what the command was asked for is done and lasts, whatever becomes of the report about it: then a
   * report that cannot be written does not make the command a failure.
   */
  readonly achieved?: () => void;
  /** How long a command may take to end after SIGTERM before it gets SIGKILL, in milliseconds. */
  readonly killGraceMs: number;
}

/** Every name of a secret in the environment. */
export const SECRET_NAMES: readonly string[] = Object.values<Secret>(SECRETS).flatMap(({ env, alias }) =>
  alias === undefined ? [env] : [env, alias],
);

/** A copy of an environment without secrets. */
export function withoutSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !SECRET_NAMES.includes(name)));
}

/**
 * The context of the real process. Takes the secrets out of `process.env`, since whatever starts a child (gpg, for
 * example) hands that on.
 */
export function processContext(): Context {
  const env = { ...process.env };
  for (const name of SECRET_NAMES) delete process.env[name];
  const context: Context = {
    env,
    childEnv: withoutSecrets(env),
    withVariables: (variables) => {
      Object.assign(process.env, withoutSecrets(variables));
      return withVariables(context, variables);
    },
    stdin: process.stdin,
    stdout: standardOutput(),
    stderr: process.stderr,
    platform: process.platform,
    home: homeFolder(),
    hostname: osHostname(),
    now: Date.now,
    sdk: () => import("@strongroom/client-sdk"),
    signals: process,
    exit: (code) => process.exit(code),
    killGraceMs: 5_000,
  };
  return context;
}

/** Surroundings with more variables. */
export function withVariables(context: Context, variables: Readonly<Record<string, string>>): Context {
  const env = { ...context.env, ...variables };
  return { ...context, env, childEnv: withoutSecrets(env) };
}

/**
 * The folder in HOME, else that of the system's list of users. A HOME that is empty or relative would put settings into
 * whatever folder the program was started in.
 */
function homeFolder(): string {
  for (const find of [homedir, () => userInfo().homedir]) {
    try {
      const found = find();
      if (isAbsolute(found)) return found;
    } catch {
      // No HOME, and a user whom the system does not know.
    }
  }
  return "";
}

/**
 * Node's own stream for a redirected output takes a short write, the last that fits onto a full disk, for a whole one.
 */
function standardOutput(): Screen {
  try {
    if (fstatSync(1).isFile()) return createWriteStream("", { fd: 1 });
  } catch {
    // It is closed; Node's stream says so.
  }
  return process.stdout;
}

/** A secret from the environment; which of its names was set decides over files. */
export function secretFromEnv(
  spec: Secret,
  env: NodeJS.ProcessEnv,
): { value: string; source: "environment" | "alias"; name: string } | undefined {
  const own = env[spec.env];
  if (own !== undefined && own !== "") return { value: own, source: "environment", name: spec.env };
  const { alias } = spec;
  const other = alias === undefined ? undefined : env[alias];
  return alias === undefined || other === undefined || other === ""
    ? undefined
    : { value: other, source: "alias", name: alias };
}
