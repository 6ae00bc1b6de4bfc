import type { PendingBlob } from "../../app/ports/blob-store.ts";
import { declaredBody } from "../blob-store/declared-body.ts";
import { onDisk } from "./disk-error.ts";
import { writeFully } from "./durable-files.ts";
import type { PartAttempt } from "./part-attempts.ts";
import type { PendingUploads, PlacedPart } from "./pending-uploads.ts";

/** What {@link writePartFile} writes, and where. */
export interface PartFileContext {
  readonly pending: PendingUploads;
  readonly attempt: PartAttempt;
  readonly blob: PendingBlob;
  readonly part: PlacedPart;
  /** For messages: completes the sentence "Cannot ...". */
  readonly doing: string;
}

/**
 * Writes a part's body to its place in the data file, makes it durable, then marks the part as stored. The body is read
 * in step with the disk.
 *
 * @throws the body's own error, the reason the attempt was stopped for, or a BlobStoreError; the part is then not
 *   marked by this attempt.
 */
export async function writePartFile(context: PartFileContext, body: AsyncIterable<Uint8Array>): Promise<void> {
  const { pending, attempt, blob, part, doing } = context;
  const step = <T>(action: () => Promise<T>): Promise<T> => attempt.step(() => onDisk(doing, action));
  const { file, isStored } = await step(async () => {
    await pending.find(blob);
    const isStored = await pending.isMarked(blob.token, part);
    return { isStored, file: await pending.openData(blob.token) };
  });
  try {
    let position = Number(part.offset);
    for await (const chunk of declaredBody(body, part.size, attempt.signal)) {
      // A part that is stored has these same bytes, durably; an attempt that breaks off or lies must not scribble over
      // them.
      if (isStored) continue;
      await step(() => writeFully(file, chunk, position));
      position += chunk.length;
    }
    // One step: an attempt that comes while the bytes are being made durable waits, and then finds the part stored.
    await step(async () => {
      if (!isStored) await file.datasync();
      await pending.mark(blob.token, part);
    });
  } finally {
    await file.close();
  }
}
