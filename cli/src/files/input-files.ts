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

/** Reads a secret from a file; line ends after it do not belong to it. */
export async function readSecretFile(path: string, what: string): Promise<string> {
  return stripLineEnds((await readInputFile(path, `${what} file`)).toString("utf8"));
}

/** Reads a secret from standard input to its end. */
export async function readSecretFromStdin(stdin: Input, what: string): Promise<string> {
  const bytes = await collect(stdin, MAX_INPUT_FILE);
  return stripLineEnds(bounded(bytes, "standard input", what).toString("utf8"));
}

function bounded(bytes: Buffer, where: string, what: string): Buffer {
  if (bytes.length > MAX_INPUT_FILE) throw new UsageError(`Cannot read the ${what}: ${where} has more than 1 MiB.`);
  const content = withoutMark(bytes, where, what);
  if (content.length === 0) throw new UsageError(`Cannot read the ${what}: ${where} is empty.`);
  return content;
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

/** `printf`, `echo` and editors differ in how many they leave; a secret has none. */
function stripLineEnds(text: string): string {
  return text.replace(/[\r\n]+$/, "");
}

/**
 * The content without the mark that editors of Windows put before UTF-8, which is part of no secret and no key.
 * @throws {UsageError} for UTF-16, which PowerShell's `>` writes: each byte of it would be taken for a character.
 */
function withoutMark(bytes: Buffer, where: string, what: string): Buffer {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) return bytes.subarray(3);
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff && bytes[2] === 0))
    throw new UsageError(`Cannot read the ${what}: ${where} is UTF-16.`, { hint: "save it as UTF-8" });
  return bytes;
}
