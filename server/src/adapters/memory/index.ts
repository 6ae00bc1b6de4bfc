import type { StoreKind } from "../blob-store/store-kind.ts";

/** A store in the memory of this process, which goes with it. */
export interface MemoryLocation {
  readonly kind: "memory";
  /** Keep only sizes; for measurements. */
  readonly discard: boolean;
}

/** `mem://` */
export const memory: StoreKind<MemoryLocation> = {
  scheme: "mem",
  form: "mem://",
  parse(text) {
    if (text === "mem://") return { kind: "memory", discard: false };
    if (text === "mem://discard") return { kind: "memory", discard: true };
    throw new RangeError("expected mem:// and nothing after it");
  },
  describe: ({ discard }) => (discard ? "mem://discard" : "mem://"),
  async open({ discard }) {
    const { MemoryBlobStore } = await import("./memory-blob-store.ts");
    return new MemoryBlobStore({ discard });
  },
};
