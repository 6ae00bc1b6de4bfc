import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { StoreKind } from "../blob-store/store-kind.ts";

/** A store in a local directory. */
export interface DirectoryLocation {
  readonly kind: "directory";
  /** Absolute. */
  readonly path: string;
}

const FORM = /^file:(?:\/\/)?(\/[^/].*|\.{1,2}\/.+)$/;

/** `file:///DIR`, also `file:./DIR` */
export const directory: StoreKind<DirectoryLocation> = {
  scheme: "file",
  form: "file:///DIR",
  parse(text) {
    const [, path] = FORM.exec(text) ?? [];
    if (path === undefined) throw new RangeError("expected file:///DIR with an absolute path, or file:./DIR");
    return { kind: "directory", path: resolve(decodeURIComponent(path)) };
  },
  describe: ({ path }) => pathToFileURL(path).href,
  async open({ path }) {
    const { DirectoryBlobStore } = await import("./directory-blob-store.ts");
    return await DirectoryBlobStore.open(path);
  },
};
