import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { compositeSha256 } from "@strongroom/protocol/digests";
import type { Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { maxUploadSize, quotaLimits } from "../../domain/quota.ts";
import { chooseSegmentSize } from "../../domain/segments.ts";
import { requireWritable } from "../guards.ts";
import type { UploadRow, VersionRow } from "../ports/database.ts";
import { inPace } from "./body-pace.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { type CommitDeps, commitUpload } from "./commit-upload.ts";
import { createUpload } from "./create-upload.ts";
import { refuseUpload, renewUpload } from "./manage-uploads.ts";
import { LONGEST_WAIT_MS } from "./tenant-shares.ts";
import type { UploadDeps } from "./upload-deps.ts";
import { writeSegment } from "./write-segment.ts";

/** The ports of {@link receiveVersion}. */
export interface ReceiveDeps extends CommitDeps {
  /** Where segments are collected, for the whole process. */
  readonly buffers: BufferPool;
}

/** A body that becomes a version by itself. */
export interface ReceiveInput {
  readonly collection: string;
  /** Bytes of the body, where they are known for sure; undefined else. */
  readonly size: bigint | undefined;
  /** The bytes. Read no faster than they are stored, and not before every check that needs none was passed. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Asked before each try of a segment and of the commit: throws when the caller may not go on. */
  readonly stands: () => Promise<unknown>;
  /** Asked when the body is stored, before each try of the commit: throws when it must not become a version after all. */
  readonly confirmed: () => Promise<void>;
  /** Called for each segment that was stored, with its bytes. */
  readonly onSegment?: (bytes: number) => void;
  /** Ends it: the connection is gone, or the server is stopping. */
  readonly signal: AbortSignal;
}

/**
 * Makes a version of one body, for clients that know neither segments nor commits: cuts it into segments, each of which
 * goes through the same use case as a client's own, and commits when the caller confirms. Whatever goes wrong before
 * ends the upload.
 * @throws DomainError as createUpload, writeSegment and commitUpload; BufferTooLargeError; what `body`, `stands` and
 *   `confirmed` throw
 */
export async function receiveVersion(
  deps: ReceiveDeps,
  principal: Principal,
  input: ReceiveInput,
): Promise<VersionRow> {
  const spec = await requireWritable(deps, principal, input.collection, "upload");
  const { leastSegmentSize } = deps.settings;
  const segmentSize = chooseSegmentSize(maxUploadSize(quotaLimits(spec)), leastSegmentSize, deps.store.capabilities);
  const needed = input.size !== undefined && input.size < segmentSize ? input.size : segmentSize;
  deps.buffers.requireFits(needed, `a segment of collection "${spec.name}"`);
  const { upload } = await createUpload(deps, principal, {
    collection: input.collection,
    requestId: "",
    expectedSize: input.size ?? 0n,
    filename: "",
    contentEncoding: "none",
    labels: {},
    clientMetadata: {},
  });
  // Collecting a segment from a slow client, or waiting for a place or a buffer, can take longer than a lease. Whoever
  // waits learns from it that the upload was ended, or is too old.
  const ended = new AbortController();
  const signal = AbortSignal.any([input.signal, ended.signal]);
  const renew = async () =>
    await renewUpload(deps, principal, upload.id).catch((error: unknown) => {
      if (error instanceof DomainError && ENDED.has(error.reason)) ended.abort(error);
    });
  const renewing = setInterval(() => void renew(), deps.settings.leaseMs / 3).unref();
  try {
    const commit = await store(deps, principal, { ...input, signal }, upload);
    const outcome = await patiently(signal, async () => {
      // Each time again: the client may have left while this waited.
      await input.confirmed();
      await input.stands();
      signal.throwIfAborted();
      return await commitUpload(deps, principal, commit);
    });
    return outcome.version;
  } catch (error) {
    await refuseUpload(deps, upload.id, reasonOf(error)).catch(() => {});
    throw error;
  } finally {
    clearInterval(renewing);
  }
}

/** What an upload cannot go on after. */
const ENDED: ReadonlySet<string> = new Set(["UPLOAD_NOT_OPEN", "UPLOAD_NOT_FOUND", "UPLOAD_TOO_OLD"]);

/** Stores the body. @returns what a commit says of it. */
async function store(
  deps: ReceiveDeps,
  principal: Principal,
  input: ReceiveInput,
  upload: Pick<UploadRow, "id" | "segmentSize" | "organization" | "userName">,
): Promise<{ uploadId: string; size: bigint; compositeSha256: Uint8Array }> {
  const { signal } = input;
  const { buffers } = deps;
  const owner = upload.organization === "" ? `user:${upload.userName}` : `organization:${upload.organization}`;
  const placed = { ...deps, shares: withPlace(deps.shares) };
  const chunks = endedBy(signal, input.body[Symbol.asyncIterator]());
  const digests: Uint8Array[] = [];
  let size = 0n;
  try {
    // A buffer is taken when there is something to put into it, and a place to send it on from: whoever waits for one
    // of its organization's holds no memory meanwhile.
    for (let rest = await nextOf(chunks); rest !== undefined; ) {
      const left = input.size === undefined || input.size <= size ? upload.segmentSize : input.size - size;
      const most = Number(left < upload.segmentSize ? left : upload.segmentSize);
      const limits = deps.config.current().organizations.get(upload.organization);
      const leave =
        limits && (await deps.shares?.enter(limits, signal, { upload: upload.id, waitMs: LONGEST_WAIT_MS }));
      let buffer: Buffer | undefined;
      let tries = 0;
      let isStored = false;
      try {
        buffer = await buffers.take(most, owner, signal);
        const pressedMs = () =>
          longest(buffers.pressedMs(owner), deps.shares?.pressedMs(upload.organization, upload.id));
        const paced = inPace({ pressedMs, now: () => buffers.now() }, rest.length, chunks);
        const collected = await collect(buffer.subarray(0, most), rest, paced);
        rest = collected.rest;
        const bytes = buffer.subarray(0, collected.length);
        const sha256 = createHash("sha256").update(bytes).digest();
        const segment = { uploadId: upload.id, index: digests.length, size: BigInt(bytes.length), sha256 };
        await patiently(signal, async () => {
          await input.stands();
          tries++;
          const body = piecesOf(bytes, deps.settings.maxChunkSize);
          await writeSegment(placed, principal, { ...segment, framingIn: new Uint8Array() }, body, signal);
        });
        isStored = true;
        digests.push(sha256);
        size += segment.size;
        input.onSegment?.(bytes.length);
      } finally {
        if (buffer !== undefined) buffers.giveBack(buffer, isStored && tries === 1);
        leave?.();
      }
      rest ??= await nextOf(chunks);
    }
  } finally {
    void chunks.return?.().catch(() => {});
  }
  return { uploadId: upload.id, size, compositeSha256: compositeSha256(digests) };
}

/** The shares of an organization for a segment that has its place already. */
function withPlace(shares: UploadDeps["shares"]): UploadDeps["shares"] {
  return (
    shares && {
      enter: async () => () => {},
      pressedMs: () => undefined,
      now: () => shares.now(),
      pace: async (...of) => await shares.pace(...of),
    }
  );
}

function longest(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? (a ?? b) : Math.max(a, b);
}

/** Chunks that end with the signal, whatever their source waits for: what is held for them is free at once. */
function endedBy(signal: AbortSignal, chunks: AsyncIterator<Uint8Array>): AsyncIterator<Uint8Array> {
  let fail: (reason: unknown) => void = () => {};
  signal.addEventListener("abort", () => fail(signal.reason), { once: true });
  return {
    async next() {
      signal.throwIfAborted();
      return await new Promise((resolve, reject) => {
        fail = reject;
        chunks.next().then(resolve, reject);
      });
    },
    return: async (value) => (await chunks.return?.(value)) ?? { done: true, value },
  };
}

/** The next chunk that has bytes; undefined at the end. */
async function nextOf(chunks: AsyncIterator<Uint8Array>): Promise<Uint8Array | undefined> {
  for (;;) {
    const next = await chunks.next();
    if (next.done === true) return undefined;
    if (next.value.length > 0) return next.value;
  }
}

/** Fills a buffer. @returns how far it was filled, and what was read and has no room; undefined for nothing. */
async function collect(
  buffer: Buffer,
  first: Uint8Array,
  chunks: AsyncIterator<Uint8Array>,
): Promise<{ length: number; rest: Uint8Array | undefined }> {
  let length = 0;
  for (let chunk: Uint8Array | undefined = first; chunk !== undefined; chunk = await nextOf(chunks)) {
    const fitting = chunk.subarray(0, buffer.length - length);
    buffer.set(fitting, length);
    length += fitting.length;
    if (length === buffer.length)
      return { length, rest: fitting.length < chunk.length ? chunk.subarray(fitting.length) : undefined };
  }
  return { length, rest: undefined };
}

async function* piecesOf(bytes: Uint8Array, most: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += most) yield bytes.subarray(at, at + most);
}

/** How long a step is done again while its failure may pass, in milliseconds: the client cannot repeat its upload. */
const PATIENCE_MS = 2 * 60_000;

async function patiently<T>(signal: AbortSignal, step: () => Promise<T>): Promise<T> {
  let until: number | undefined;
  for (;;) {
    try {
      return await step();
    } catch (error) {
      const now = performance.now();
      until ??= now + PATIENCE_MS;
      if (!(error instanceof DomainError) || !isPassing(error) || now >= until) throw error;
      const wait = Math.min(error.retryAfterMs ?? 1000, until - now);
      await sleep(wait, undefined, { signal }).catch(() => {});
      signal.throwIfAborted();
    }
  }
}

/** Whether a step may succeed in a moment: nothing is wrong with what the client sent, nor with its right to send it. */
function isPassing({ reason, metadata, retryAfterMs }: DomainError): boolean {
  switch (reason) {
    case "STORE_UNAVAILABLE":
    case "DATABASE_UNAVAILABLE":
      return true;
    case "RATE_LIMITED":
      return metadata.budget === "organization";
    case "COLLECTION_BUSY":
      return retryAfterMs !== undefined;
    default:
      return false;
  }
}

/** Why the upload ended, for whoever looks at it later. */
function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).slice(0, 200);
}
