import type { StoreKind } from "../blob-store/store-kind.ts";
import { parseS3, type S3Location } from "./s3-location.ts";

/**
 * `s3://BUCKET/PREFIX?...`. The client is loaded only when a store is opened: it doubles memory and start-up time of
 * the embedded default.
 */
export const s3: StoreKind<S3Location> = {
  scheme: "s3",
  form: "s3://BUCKET/PREFIX",
  parse: parseS3,
  describe({ bucket, prefix, endpoint, region }) {
    const options = Object.entries({ endpoint, region }).filter(([, value]) => value !== undefined);
    const query = options.map(([name, value]) => `${name}=${value}`).join("&");
    return `s3://${bucket}/${prefix}${query && `?${query}`}`;
  },
  async open(location, log) {
    const { openS3Store } = await import("./open-s3-store.ts");
    return await openS3Store(location, (fields, message) => log.info(fields, message));
  },
};
