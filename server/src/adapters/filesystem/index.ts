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

/** Options of the Go CDK, which existing installations use, and that change nothing here: directories are made anyway. */
const IGNORED: ReadonlySet<string> = new Set(["create_dir", "metadata", "no_tmp_dir"]);

/** `file:///DIR`, also `file:./DIR` */
export const directory: StoreKind<DirectoryLocation> = {
  scheme: "file",
  form: "file:///DIR",
  parse(text) {
    const [place = "", query = ""] = text.split(/\?(.*)/s);
    const [, path] = FORM.exec(place) ?? [];
    if (path === undefined) throw new RangeError("expected file:///DIR with an absolute path, or file:./DIR");
    for (const name of new URLSearchParams(query).keys())
      if (!IGNORED.has(name)) throw new RangeError('a file URL has no options; a "?" in the path is written as %3F');
    return { kind: "directory", path: resolve(decodeURIComponent(path)) };
  },
  describe: ({ path }) => pathToFileURL(path).href,
  async open({ path }) {
    const { DirectoryBlobStore } = await import("./directory-blob-store.ts");
    return await DirectoryBlobStore.open(path);
  },
};
