/**
 * A program for the kill test: writes objects into a directory store forever, and says on standard output, a JSON line
 * each, what it intends and what was acknowledged. Arguments: the store's directory, a seed.
 */
import { writeSync } from "node:fs";
import { DirectoryBlobStore } from "../../src/adapters/filesystem/directory-blob-store.ts";
import { begin, numbersFrom, objectOf, partsOf, write } from "./blob-store-tools.ts";

/** What the writer reports; `aborting` before it asks, everything else after the acknowledgement. */
export interface WriterEvent {
  readonly what: "begun" | "part" | "aborting" | "aborted" | "completed" | "put";
  readonly key: string;
  /** Also the seed of the object's bytes, see {@link objectOf}. */
  readonly uploadId: string;
  readonly token: string;
  /** For `part`. */
  readonly index?: number;
}

if (import.meta.main) {
  const [root = "", seed = ""] = process.argv.slice(2);
  const store = await DirectoryBlobStore.open(root);
  await Promise.all([1, 2, 3].map((worker) => writeForEver(store, `${seed}-${worker}`)));
}

async function writeForEver(store: DirectoryBlobStore, seed: string): Promise<never> {
  const random = numbersFrom(seed);
  for (let number = 0; ; number++) {
    const uploadId = `${seed}-${number}`;
    const blob = await begin(store, `dumps/${seed}/${number}`, uploadId);
    const report = (what: WriterEvent["what"], index?: number) => say({ what, ...blob, uploadId, index });
    report("begun");
    const { pieces } = objectOf(store, uploadId);
    // All at the same time, so that the kill finds several under way.
    await Promise.all(
      pieces.map(async (piece) => {
        await write(store, blob, piece);
        report("part", piece.part.index);
      }),
    );
    if (random() < 0.2) {
      report("aborting");
      await store.abort(blob);
      report("aborted");
      continue;
    }
    await store.complete(blob, uploadId, partsOf(pieces));
    report("completed");
    await store.put(`${blob.key}.json`, Buffer.from(uploadId));
    report("put");
  }
}

function say(event: WriterEvent): void {
  // Synchronous, so that what was acknowledged before the kill has been said.
  writeSync(1, `${JSON.stringify(event)}\n`);
}
