import type { BlobStore } from "../ports/blob-store.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, UploadRow } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";
import type { DiskReserve } from "./disk-reserve.ts";
import type { SegmentAttempts } from "./segment-attempts.ts";
import type { TenantShares } from "./tenant-shares.ts";

/** The ports and settings of every step of an upload, from its creation to its end. */
export interface UploadDeps {
  readonly database: Database;
  readonly store: BlobStore;
  readonly config: ConfigSource;
  readonly settings: UploadSettings;
  /** The segment writes under way in this process, of which the newest attempt wins. */
  readonly attempts: SegmentAttempts;
  /** Shares of organizations in this process; none when left out, for tests. */
  readonly shares?: Pick<TenantShares, "enter" | "pace" | "pressedMs" | "now"> | undefined;
  /** What uploads leave free on the disks of this machine; nothing when left out. */
  readonly disk?: DiskReserve | undefined;
  /** Makes a unique id, a UUID. */
  readonly newId: () => string;
}

/** An upload with what is derived from other rows. */
export interface UploadView {
  readonly upload: UploadRow;
  /** Bytes that would be accepted now on top of what is reserved; 0 unless it is open. */
  readonly remaining: bigint;
  /** Bytes of its acknowledged segments; 0 once it has ended. */
  readonly storedBytes: bigint;
}
