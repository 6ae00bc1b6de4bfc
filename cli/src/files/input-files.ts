import { open } from "node:fs/promises";
import { UsageError } from "@strongroom/command-line/errors";
import type { Input } from "../context.ts";
import { isSystemError, systemMessage } from "../errors.ts";

/** Passwords, passphrases, tokens and keys are far smaller; a file above this, in bytes, is not what was meant. */
const MAX_INPUT_FILE = 1 << 20;

/**
 * Reads a small file that an option names.
 * @throws {UsageError} when it cannot be read, is empty, or has more than 1 MiB.
 */
export async function readInputFile(path: string, what: string): Promise<Buffer> {
  try {
    const file = await open(path);
    try {
      // Devices and pipes (`<(pass show backup)`) have no size to ask for, so the bound is kept while reading.
      return bounded(
        await collect(file.createReadStream({ autoClose: false, highWaterMark: 65_536 }), MAX_INPUT_FILE),
        path,
        what,
      );
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isSystemError(error))
      throw new UsageError(`Cannot read the ${what}: ${systemMessage(error)}.`, { cause: error });
    throw error;
  }
}

/** Reads a secret from a file; one line end after it does not belong to it. */
export async function readSecretFile(path: string, what: string): Promise<string> {
  return stripLineEnd((await readInputFile(path, `${what} file`)).toString("utf8"));
}

/** Reads a secret from standard input to its end. */
export async function readSecretFromStdin(stdin: Input, what: string): Promise<string> {
  const bytes = await collect(stdin, MAX_INPUT_FILE);
  return stripLineEnd(bounded(bytes, "standard input", what).toString("utf8"));
}

function bounded(bytes: Buffer, where: string, what: string): Buffer {
  if (bytes.length > MAX_INPUT_FILE) throw new UsageError(`Cannot read the ${what}: ${where} has more than 1 MiB.`);
  if (bytes.length === 0) throw new UsageError(`Cannot read the ${what}: ${where} is empty.`);
  return bytes;
}

async function collect(source: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > limit) break;
  }
  return Buffer.concat(chunks);
}

function stripLineEnd(text: string): string {
  return text.replace(/\r?\n$/, "");
}
