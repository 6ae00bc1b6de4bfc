import { AgeWalker } from "./age.ts";
import { ArmorReader } from "./armor.ts";
import { AGE_LABEL, PGP_LABEL } from "./armor-label.ts";
import { FramingError } from "./errors.ts";
import { describeForeign } from "./hints.ts";
import { STREAM_LIMIT } from "./limits.ts";
import { OpenPgpWalker } from "./openpgp.ts";
import { Acceptance, type CiphertextFormat, type FramingPolicy } from "./policy.ts";
import { RecipientCounter, type Recipients } from "./recipients.ts";
import { Start } from "./start.ts";
import { requirePossible, StateReader, StateWriter } from "./state-codec.ts";

/** Second byte of an encoded state: what the stream is, detected so far. */
const KIND_START = 0;
const KIND_OPENPGP = 1;
const KIND_AGE = 2;
const KIND_ARMORED_OPENPGP = 3;
const KIND_ARMORED_AGE = 4;

/**
 * Checks that a stream has the structure of one encrypted OpenPGP message (RFC 9580, RFC 4880, LibrePGP's packet 20) or
 * of one age v1 file, binary or armored, in chunks of any size. It never keeps payload, and passes over packet bodies
 * without looking at them. Structure is all it sees: that the content is secret, whole or authentic it cannot tell.
 *
 * The verdict and the state depend on the bytes alone, not on how they were cut into chunks or segments. Only the words
 * of a refusal may say more where the first chunk is longer.
 */
export class FramingMachine {
  readonly #acceptance: Acceptance;
  #offset = 0;
  /** Present until the format is known; then the walker is. */
  #start: Start | undefined = new Start();
  #walker: OpenPgpWalker | AgeWalker | undefined;
  #armor: ArmorReader | undefined;
  #failure: FramingError | undefined;
  /** Present where the message is followed from its first byte; no part of the state. */
  #counter: RecipientCounter | undefined;

  /**
   * @param policy what is accepted; it is not part of the state and is given again for every segment
   * @param state what {@link FramingMachine.encodeState} gave, untrusted; absent for the start of a stream
   * @throws FramingStateError for a state that cannot be used; a format that the policy does not accept is found by the
   *   first push
   * @throws TypeError for a policy with a malformed recipient
   */
  constructor(policy: FramingPolicy, state?: Uint8Array) {
    this.#acceptance = new Acceptance(policy);
    if (state !== undefined) this.#decode(state);
  }

  /**
   * Takes the next bytes; none are kept.
   * @throws FramingError for a stream that is not acceptable; from then on the machine throws the same error always
   */
  push(chunk: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      this.#requireFormat();
      if (this.#offset + chunk.length > STREAM_LIMIT) {
        throw new FramingError(
          "malformed",
          STREAM_LIMIT,
          "The stream is longer than can be counted. Cut the dump into several",
        );
      }
      this.#take(chunk);
    } catch (error) {
      throw this.#fail(this.#named(error, chunk));
    }
    this.#offset += chunk.length;
  }

  /**
   * The state after the bytes so far, at most `MAX_FRAMING_STATE_BYTES` long. Equal states have equal bytes, so the end
   * of a segment and the start of the next can be compared as they are.
   * @throws FramingError the one that `push` threw
   */
  encodeState(): Uint8Array {
    if (this.#failure !== undefined) throw this.#failure;
    const writer = new StateWriter().byte(this.#kind()).uint(this.#offset);
    this.#start?.encode(writer);
    this.#walker?.encode(writer);
    this.#armor?.encode(writer);
    return writer.finish();
  }

  /**
   * Whether the message could end here. A binary age file looks complete wherever its payload is cut, but for the first
   * 16 bytes of a chunk.
   */
  get complete(): boolean {
    if (this.#failure !== undefined || this.#walker === undefined) return false;
    return this.#armor === undefined ? this.#walker.complete : this.#armor.complete;
  }

  /** The format, or undefined until it is known. */
  get format(): CiphertextFormat | undefined {
    if (this.#walker instanceof OpenPgpWalker) return "openpgp";
    return this.#walker !== undefined && (this.armored || this.#walker.recognized) ? "age" : undefined;
  }

  /** Whether the stream is armored; false until that is known. */
  get armored(): boolean {
    return this.#armor !== undefined;
  }

  /** Bytes of the whole stream so far. */
  get offset(): bigint {
    return BigInt(this.#offset);
  }

  /**
   * What the message is encrypted to, as its header says. Undefined until the header is over, and for a machine that
   * began after the first byte of the message: the header fits the first 64 KiB, so the one that checks the first
   * segment knows it.
   */
  get recipients(): Recipients | undefined {
    return this.#walker?.payloadStarted === true ? this.#counter?.counts : undefined;
  }

  /**
   * Ends the stream. It changes nothing where it does not throw.
   * @throws FramingError "empty" when there was no byte, "truncated" unless {@link FramingMachine.complete}, or the one
   *   that `push` threw
   */
  finish(): void {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      this.#requireFormat();
    } catch (error) {
      throw this.#fail(error);
    }
    if (this.complete) return;
    throw this.#fail(
      this.#offset === 0
        ? new FramingError("empty", 0, "Expected a backup, got not one byte. Look for an error of the dump command")
        : new FramingError(
            "truncated",
            this.#offset,
            `The stream ends inside ${this.#unfinished()}. Look for an error of the program that encrypts, or ` +
              "of the connection, and " +
              "upload again",
          ),
    );
  }

  #unfinished(): string {
    if (this.format === undefined) return "its first line, before it was clear whether it is encrypted";
    return `${this.armored ? "an armored" : "a binary"} ${this.format === "age" ? "age file" : "OpenPGP message"}`;
  }

  /** Says what a refused stream seems to be, when its first bytes are in the chunk: nothing of earlier ones is kept. */
  #named(error: unknown, chunk: Uint8Array): unknown {
    if (!(error instanceof FramingError) || this.#offset > 0) return error;
    const words = describeForeign(chunk, error.violation);
    return words === undefined ? error : new FramingError(error.violation, Number(error.offset), words);
  }

  #fail(error: unknown): unknown {
    if (error instanceof FramingError) this.#failure = error;
    return error;
  }

  /** A state may come from a time when the policy was another. */
  #requireFormat(): void {
    const format = this.format;
    if (format !== undefined) this.#acceptance.require(format, this.#offset);
  }

  #take(chunk: Uint8Array): void {
    const base = this.#offset;
    let at = this.#start === undefined ? 0 : this.#takeStart(this.#start, chunk);
    const walker = this.#walker;
    if (walker === undefined) return;
    if (this.#armor !== undefined) {
      this.#armor.push(chunk, at, base);
      return;
    }
    while (at < chunk.length) {
      const skippable = walker.skippable;
      if (skippable > 0) {
        const count = Math.min(skippable, chunk.length - at);
        walker.skip(count);
        at += count;
      } else {
        walker.byte(chunk[at]!, base + at);
        at += 1;
      }
    }
  }

  /** Feeds bytes until the format is known; returns the index of the first byte left for the walker or the armor. */
  #takeStart(start: Start, chunk: Uint8Array): number {
    for (let at = 0; at < chunk.length; at += 1) {
      const offset = this.#offset + at;
      const beginning = start.byte(chunk[at]!, offset);
      if (beginning === undefined) continue;
      const { format, armor } = beginning;
      // The first byte alone does not tell age: its walker asks at the end of the first line.
      if (format === "openpgp" || armor !== undefined) this.#acceptance.require(format, offset);
      this.#start = undefined;
      const counter = new RecipientCounter();
      this.#counter = counter;
      this.#walker =
        format === "openpgp" ? new OpenPgpWalker(this.#acceptance, counter) : new AgeWalker(this.#acceptance, counter);
      if (armor === undefined) return at;
      this.#armor = new ArmorReader(armor, this.#walker);
      return at + 1;
    }
    return chunk.length;
  }

  #kind(): number {
    if (this.#walker === undefined) return KIND_START;
    const openpgp = this.#walker instanceof OpenPgpWalker;
    if (this.#armor === undefined) return openpgp ? KIND_OPENPGP : KIND_AGE;
    return openpgp ? KIND_ARMORED_OPENPGP : KIND_ARMORED_AGE;
  }

  #decode(state: Uint8Array): void {
    const reader = new StateReader(state);
    const kind = reader.byte(KIND_ARMORED_AGE);
    const offset = reader.uint(STREAM_LIMIT);
    this.#offset = offset;
    if (kind === KIND_START) {
      this.#start = Start.decode(reader, offset);
    } else {
      const armored = kind === KIND_ARMORED_OPENPGP || kind === KIND_ARMORED_AGE;
      const openpgp = kind === KIND_OPENPGP || kind === KIND_ARMORED_OPENPGP;
      this.#start = undefined;
      this.#walker = openpgp
        ? OpenPgpWalker.decode(reader, this.#acceptance, offset, armored)
        : AgeWalker.decode(reader, this.#acceptance, offset, armored);
      if (armored) this.#armor = ArmorReader.decode(reader, openpgp ? PGP_LABEL : AGE_LABEL, this.#walker, offset);
    }
    reader.end();
    const again = this.encodeState();
    requirePossible(again.length === state.length && again.every((byte, index) => byte === state[index]));
  }
}

/** The encoded state at the start of every stream. */
export function initialFramingState(): Uint8Array {
  return new FramingMachine(ANY).encodeState();
}

/** What an encoded state says of its stream. */
export interface FramingInspection {
  /** Whether the message could end here. */
  readonly complete: boolean;
  /** The format, or undefined until it is known. */
  readonly format: CiphertextFormat | undefined;
  /** Whether the stream is armored; false until that is known. */
  readonly armored: boolean;
  /** Bytes of the whole stream so far. */
  readonly offset: bigint;
}

/**
 * Looks into an encoded state without a policy, as a commit does with the last one.
 * @throws FramingStateError for a state that cannot be used
 */
export function inspectFramingState(state: Uint8Array): FramingInspection {
  const { complete, format, armored, offset } = new FramingMachine(ANY, state);
  return { complete, format, armored, offset };
}

const ANY: FramingPolicy = { formats: ["openpgp", "age"] };
