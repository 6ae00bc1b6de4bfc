import { EventEmitter } from "node:events";
import { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import type { ExecutionContext } from "ava";
import { type Context, type Input, type Screen, withoutSecrets, withVariables } from "../../src/context.ts";
import { run } from "../../src/program.ts";

/** A stream that remembers what was written to it. */
export class Recorder extends Writable {
  isTTY = false;
  readonly chunks: Buffer[] = [];

  override _write(chunk: Buffer | string, _encoding: BufferEncoding, done: () => void): void {
    this.chunks.push(Buffer.from(chunk));
    done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get text(): string {
    return this.bytes.toString("utf8");
  }
}

/** A stand-in for the process around a command. */
export interface TestContext {
  readonly context: Context;
  readonly stdout: Recorder;
  readonly stderr: Recorder;
  readonly signals: EventEmitter;
  /** Codes given to `exit`. */
  readonly exits: number[];
  /** A folder of this test; also the home folder. */
  readonly dir: string;
  /** Runs a command line. */
  readonly run: (...argv: string[]) => Promise<number>;
}

/** What a test may choose. */
export interface Choices {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: Input;
  readonly stdinIsTerminal?: boolean;
  readonly stdoutIsTerminal?: boolean;
  readonly sdk?: Context["sdk"];
  readonly now?: () => number;
  readonly platform?: NodeJS.Platform;
}

/** Makes the surroundings of a command: nothing of the developer's home, environment or terminal gets in. */
export async function testContext(t: ExecutionContext, choices: Choices = {}): Promise<TestContext> {
  const dir = await temporaryFolder(t);
  const env = { PATH: process.env.PATH ?? "", HOME: dir, ...choices.env };
  const stdin: Input = choices.stdin ?? Readable.from([]);
  if (choices.stdinIsTerminal) stdin.isTTY = true;
  const stdout = new Recorder();
  const stderr = new Recorder();
  if (choices.stdoutIsTerminal) stdout.isTTY = true;
  const signals = new EventEmitter();
  const exits: number[] = [];
  const context: Context = {
    env,
    childEnv: withoutSecrets(env),
    withVariables: (variables) => withVariables(context, variables),
    stdin,
    stdout: stdout as Screen,
    stderr: stderr as Screen,
    platform: choices.platform ?? "linux",
    home: dir,
    hostname: "test-host",
    now: choices.now ?? Date.now,
    sdk: choices.sdk ?? (() => import("@strongroom/client-sdk")),
    signals,
    exit: (code) => exits.push(code),
    killGraceMs: 1_000,
  };
  return { context, stdout, stderr, signals, exits, dir, run: (...argv) => run(argv, context) };
}

/** Texts of arguments by the options' names, from names as code has them: `publicKey` is `public-key`. */
export function givenTexts(
  given: Readonly<Record<string, string | readonly string[]>>,
): Map<string, readonly string[]> {
  return new Map(
    Object.entries(given).map(([name, value]) => [
      name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
      typeof value === "string" ? [value] : value,
    ]),
  );
}

/** Waits until no process of a group is left; whoever inherits orphans may take a while to clear them away. */
export async function untilGone(t: ExecutionContext, group: number): Promise<void> {
  t.true(group > 1, "no process group");
  for (let tries = 0; tries < 400; tries++) {
    try {
      process.kill(-group, 0);
    } catch {
      return;
    }
    await sleep(25);
  }
  t.fail(`processes of group ${group} are left`);
}
