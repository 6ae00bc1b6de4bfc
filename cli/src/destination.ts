import type { Version } from "@strongroom/client-sdk";
import type { Screen } from "./context.ts";
import { CommandFailedError } from "./errors.ts";
import { untilAborted } from "./processes/until-aborted.ts";

/**
 * Where a fetched version goes. Its reader learns of the end only by `finish`, which is called after everything was
 * verified.
 */
export interface Destination {
  /** Called once before the first byte. */
  open(version: Version): Promise<void>;
  /** Takes the next bytes; returns when more can come. */
  write(bytes: Uint8Array): Promise<void>;
  /** Everything was verified: signals the end and waits until it is dealt with. */
  finish(): Promise<void>;
  /** It failed: leaves nothing behind that could be taken for a whole version. */
  discard(): Promise<void>;
  /** Where it went, for people. */
  readonly name: string;
}

/**
 * Writes bytes and waits until the stream took them, so that no more than one piece is in memory. Rejects when the
 * stream breaks.
 */
export async function writeAll(stream: NodeJS.WritableStream, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
  const written = new Promise<void>((resolve, reject) => {
    stream.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
  await untilAborted(written, signal);
}

/** Standard output. A reader of a pipe sees its end whatever happens; only the exit code shows the difference. */
export class StdoutDestination implements Destination {
  readonly name = "standard output";
  readonly #stdout: Screen;
  readonly #signal: AbortSignal;

  constructor(stdout: Screen, signal: AbortSignal) {
    this.#stdout = stdout;
    this.#signal = signal;
  }

  async open(): Promise<void> {}

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#stdout, bytes, this.#signal);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EPIPE") throw code === undefined ? error : Object.assign(error as Error, { path: this.name });
      throw new CommandFailedError("the reader of standard output ended before the version did", { cause: error });
    }
  }

  async finish(): Promise<void> {}

  async discard(): Promise<void> {}
}
