/** One attempt to send one segment. */

import { create } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import {
  SegmentHeaderSchema,
  type UploadService,
  type WriteSegmentRequest,
  WriteSegmentRequestSchema,
  type WriteSegmentResponse,
} from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { FULL_CHUNK_BYTES } from "@strongroom/protocol/limits";
import { LinkedController, Watchdog } from "../abort.ts";
import type { Timings } from "../connection/timings.ts";
import type { PreparedSegment } from "./segments.ts";

/** The upload that segments belong to, and how to reach its server. */
export interface SegmentTarget {
  /** Client on the upload's own connection. */
  client: Client<typeof UploadService>;
  /** Id of the upload. */
  uploadId: string;
  /** The most bytes the server takes in one chunk. */
  maxChunkSize: number;
  /** When to take an attempt for stuck. */
  timings: Pick<Timings, "stallMs" | "acknowledgeMs">;
  /** Called with how many bytes of the segment are handed to the network. */
  onSent?: (bytes: number) => void;
}

/**
 * Sends a segment and waits for its acknowledgement. The call is over when the promise settles: also after an early
 * refusal, whose request stream is closed at once.
 *
 * @throws ConnectError as the call failed; with code `deadline_exceeded` when it stood still
 */
export async function writeSegment(
  target: SegmentTarget,
  segment: PreparedSegment,
  signal: AbortSignal,
): Promise<WriteSegmentResponse> {
  const attempt = new LinkedController(signal);
  const watchdog = new Watchdog(attempt);
  const { stallMs, acknowledgeMs } = target.timings;

  async function* frames(): AsyncGenerator<WriteSegmentRequest> {
    const { index, size, sha256, framingIn } = segment;
    const header = create(SegmentHeaderSchema, {
      uploadId: target.uploadId,
      index,
      sizeBytes: BigInt(size),
      sha256,
      framingIn,
    });
    yield create(WriteSegmentRequestSchema, { frame: { case: "header", value: header } });
    const chunkSize = Math.min(FULL_CHUNK_BYTES, target.maxChunkSize);
    for (let offset = 0; offset < size; offset += chunkSize) {
      const chunk = await segment.read(offset, Math.min(chunkSize, size - offset));
      // The file may have answered after the attempt was over.
      if (attempt.signal.aborted) return;
      watchdog.expect(stallMs, "the connection took no bytes");
      target.onSent?.(chunk.length);
      yield create(WriteSegmentRequestSchema, { frame: { case: "chunk", value: chunk } });
    }
    watchdog.expect(acknowledgeMs, "the segment was not acknowledged");
  }

  try {
    watchdog.expect(stallMs, "the connection took no bytes");
    return await target.client.writeSegment(frames(), { signal: attempt.signal });
  } finally {
    watchdog.stop();
    // Leaving a call does not end it; this closes its stream if it is still open.
    attempt.abort(new ConnectError("the call is over", Code.Canceled));
    attempt.unlink();
  }
}
