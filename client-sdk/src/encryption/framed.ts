/** Ciphertext on its way into a program or a library, held against the rules of its format. */
import { FramingError, FramingMachine } from "@strongroom/framing";
import { decryptionFailure } from "./options.ts";

/**
 * Passes a stream on, and knows whether it was one whole message. A program that reads less than the whole, or takes a
 * broken message for a whole one, is found out by that.
 */
export class FramedSource implements AsyncIterable<Uint8Array> {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #machine = new FramingMachine({ formats: ["openpgp", "age"] });

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for await (const chunk of this.#source) {
      try {
        this.#machine.push(chunk);
      } catch (error) {
        throw explained(error);
      }
      yield chunk;
    }
  }

  /**
   * Checks what was passed on so far.
   * @throws DecryptionError unless it is one whole message
   */
  finish(): void {
    try {
      this.#machine.finish();
    } catch (error) {
      throw explained(error);
    }
  }
}

function explained(error: unknown): unknown {
  if (!(error instanceof FramingError)) return error;
  return decryptionFailure(`The version is no whole encrypted message. ${error.message}`, error);
}
