import type { ExecutionContext, TestFn } from "ava";
import { objectBehaviour } from "./blob-store-suite-objects.ts";
import { partBehaviour } from "./blob-store-suite-parts.ts";
import { publicationBehaviour } from "./blob-store-suite-publication.ts";
import { streamBehaviour } from "./blob-store-suite-streams.ts";
import type { DeclareTest, OpenedStore } from "./blob-store-tools.ts";

/** Opens an empty store and has the test close it at its end. */
export type OpenStore = (t: ExecutionContext) => Promise<OpenedStore>;

/**
 * The specification of {@link BlobStore}: every adapter and every decorator passes it. It assumes nothing that the port
 * does not promise. Sizes follow from the store's capabilities, so that stores with a large least part run it too.
 *
 * @param name begins the title of every test.
 */
export function blobStoreSuite(test: TestFn, name: string, open: OpenStore): void {
  const declare: DeclareTest = (title, run) => {
    test(`${name}: ${title}`, async (t) => {
      await run(t, await open(t));
    });
  };
  partBehaviour(declare);
  publicationBehaviour(declare);
  objectBehaviour(declare);
  streamBehaviour(declare);
}
