/** The ciphertext of a version: read by number, resumed where it broke off, verified as it comes. */
import { type Client, Code, ConnectError, createContextValues } from "@connectrpc/connect";
import type { Version } from "@strongroom/gen/strongroom/v1/resources_pb";
import type { ReadHeader, ReadVersionResponse, VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import type { ReceivedPieces } from "@strongroom/protocol/chunk-detour";
import { LinkedController, Watchdog } from "../abort.ts";
import { toStrongroomError } from "../connection/error-mapping.ts";
import { receivedOf, TAKES_PIECES } from "../connection/read-transport.ts";
import type { Retrier } from "../connection/retry.ts";
import type { Timings } from "../connection/timings.ts";
import { IntegrityError } from "../errors.ts";
import { nameOf, type SegmentVerifier } from "./segment-digests.ts";

/** After a failed decryption, at most this much is read to tell a damaged version from a wrong key, in bytes. */
const DIAGNOSIS_LIMIT = 64 * 1024 * 1024;

/** Pieces of the network are joined to this, in bytes. */
const JOINED_BYTES = 256 * 1024;

/** How often a stream may end too early at the same byte without an error. */
const CUT_LIMIT = 3;

/** The connection, retries and limits of reading. */
export interface ReadContext {
  /** Client on the download's own connection. */
  client: Client<typeof VersionService>;
  /** Its retries. */
  retrier: Retrier;
  /** Times and counts. */
  timings: Timings;
  /** Ends the reading. */
  signal: AbortSignal;
  /** Called before every attempt to go on but the first. */
  onResume: () => void;
  /** Called after every chunk. */
  onChunk: () => void;
}

/**
 * The verified bytes of a version. Can be iterated once; leaving the iteration early does not end it, so that the rest
 * can still be verified with {@link VerifiedSource.drain}.
 *
 * A chunk is passed on as soon as it comes, its segment is verified at the segment's end: a segment may have hundreds
 * of MiB. So a reader may have seen up to one segment of wrong bytes when the iteration fails.
 */
export class VerifiedSource implements AsyncIterable<Uint8Array> {
  readonly #version: Version;
  readonly #verifier: SegmentVerifier;
  readonly #context: ReadContext;
  readonly #received: AsyncGenerator<ReceivedPieces>;

  constructor(version: Version, verifier: SegmentVerifier, context: ReadContext) {
    this.#version = version;
    this.#verifier = verifier;
    this.#context = context;
    this.#received = this.#read();
  }

  /** In the pieces in which they were received, without a copy. */
  received(): AsyncIterable<ReceivedPieces> {
    return { [Symbol.asyncIterator]: () => ({ next: () => this.#received.next() }) };
  }

  /** Joined, since what comes next costs most by the piece. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    let joined: Uint8Array[] = [];
    let size = 0;
    for await (const { pieces, isEnd } of this.received()) {
      for (const piece of pieces) {
        joined.push(piece);
        size += piece.length;
      }
      // Nothing is held back once the server's own chunk is over.
      if (!isEnd && size < JOINED_BYTES) continue;
      yield joined.length === 1 ? joined[0]! : Buffer.concat(joined, size);
      joined = [];
      size = 0;
    }
    if (size > 0) yield Buffer.concat(joined, size);
  }

  /**
   * Reads and verifies what the iteration left.
   * @throws IntegrityError when something of it is wrong
   */
  async drain(): Promise<void> {
    while ((await this.#received.next()).done !== true);
  }

  /**
   * Tells whether bytes that could not be decrypted are damaged, by reading on to the end of their segment.
   * @throws IntegrityError when they are
   */
  async diagnose(): Promise<void> {
    const { leftOfSegment } = this.#verifier;
    if (leftOfSegment > DIAGNOSIS_LIMIT) return;
    const end = this.#verifier.offset + BigInt(leftOfSegment);
    while (this.#verifier.offset < end) {
      if ((await this.#received.next()).done === true) return;
    }
  }

  /** Ends the reading. */
  async close(): Promise<void> {
    await this.#received.return(undefined);
  }

  async *#read(): AsyncGenerator<ReceivedPieces> {
    const { retrier, signal, onResume } = this.#context;
    let cuts = 0;
    let attempt: Attempt | undefined;
    try {
      while (!this.#verifier.complete) {
        const before = this.#verifier.offset;
        // One step is what was received at once: the retries of a step end with its success, so each interruption has the whole time.
        const received = await retrier.run("ReadVersion", signal, async (count) => {
          if (count > 1) {
            attempt?.end();
            attempt = undefined;
            onResume();
          }
          attempt ??= new Attempt(this.#context, this.#version, this.#verifier.offset);
          return await attempt.next();
        });
        if (received !== undefined) {
          for (const piece of received.pieces) this.#verifier.push(piece);
          cuts = 0;
          retrier.progress();
          this.#context.onChunk();
          yield received;
          continue;
        }
        // Ended without an error, and too early.
        attempt?.end();
        attempt = undefined;
        cuts += 1;
        if (cuts >= CUT_LIMIT) {
          throw new IntegrityError(
            `${nameOf(this.#version)} has ${this.#version.sizeBytes} bytes, but the server ended the download ` +
              `${cuts} times at byte ${before}. Tell the operator of the server.`,
          );
        }
        onResume();
      }
    } finally {
      attempt?.end();
    }
  }
}

/** One call of ReadVersion. */
class Attempt {
  readonly #version: Version;
  readonly #offset: bigint;
  readonly #stallMs: number;
  readonly #controller: LinkedController;
  readonly #watchdog: Watchdog;
  readonly #messages: AsyncIterator<ReadVersionResponse>;
  #message: ReadVersionResponse | undefined;
  #begun = false;

  constructor(context: ReadContext, version: Version, offset: bigint) {
    this.#version = version;
    this.#offset = offset;
    this.#stallMs = context.timings.stallMs;
    this.#controller = new LinkedController(context.signal);
    this.#watchdog = new Watchdog(this.#controller);
    const { collection, number } = version;
    const which = { case: "number" as const, value: number };
    const messages = context.client.readVersion(
      { collection, which, offsetBytes: offset },
      { signal: this.#controller.signal, contextValues: createContextValues().set(TAKES_PIECES, true) },
    );
    this.#messages = messages[Symbol.asyncIterator]();
  }

  /** The next bytes; undefined at the end of the stream. */
  async next(): Promise<ReceivedPieces | undefined> {
    // Only while a frame is waited for: how long the sink takes for the last one is not limited.
    this.#watchdog.expect(this.#stallMs, "no byte was received");
    try {
      for (;;) {
        const received = this.#message === undefined ? undefined : await receivedOf(this.#message);
        if (received !== undefined) return received;
        this.#message = undefined;
        const result = await this.#messages.next();
        if (result.done === true) return undefined;
        const { frame } = result.value;
        if (frame.case === "header") this.#check(frame.value);
        else if (frame.case === "chunk" && this.#begun) {
          if (frame.value.length > 0) return { pieces: [frame.value], isEnd: true };
          this.#message = result.value;
        } else
          throw new IntegrityError(`${nameOf(this.#version)}: the server sent bytes before it said what they are.`);
      }
    } finally {
      this.#watchdog.stop();
    }
  }

  /** Leaving a stream does not end its call; this does. */
  end(): void {
    this.#watchdog.stop();
    this.#controller.abort(new ConnectError("the download goes on without this call", Code.Canceled));
    this.#controller.unlink();
  }

  #check(header: ReadHeader): void {
    this.#begun = true;
    const { versionId, sizeBytes } = this.#version;
    if (
      header.version?.versionId !== versionId ||
      header.version.sizeBytes !== sizeBytes ||
      header.offsetBytes !== this.#offset
    ) {
      throw new IntegrityError(
        `${nameOf(this.#version)}: expected its bytes from ${this.#offset} on, but the server sends version ` +
          `${header.version?.number} from byte ${header.offsetBytes} on.`,
      );
    }
  }
}

/** Reads a version's description, once: later calls go by its number, since the newest may be another by then. */
export async function resolveVersion(
  context: Pick<ReadContext, "client" | "retrier" | "timings" | "signal">,
  collection: string,
  number: bigint | "newest",
): Promise<Version> {
  const { client, retrier, timings, signal } = context;
  const which =
    number === "newest" ? { case: "newest" as const, value: true } : { case: "number" as const, value: number };
  const { version } = await retrier.run("GetVersion", signal, () =>
    client.getVersion({ collection, which }, { signal, timeoutMs: timings.unaryTimeoutMs }),
  );
  if (version === undefined || version.number === 0n) {
    throw toStrongroomError(new ConnectError("expected a version, but the answer has none", Code.Unknown));
  }
  retrier.opened();
  return version;
}
