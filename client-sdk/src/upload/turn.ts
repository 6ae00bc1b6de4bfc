/** Waits for the collection to take an upload, before the source is read and when it is created. */
import { createClient } from "@connectrpc/connect";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import type { Collection } from "@strongroom/gen/strongroom/v1/resources_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { sleep } from "../abort.ts";
import type { TransferContext } from "../connection/transfer-context.ts";
import { StrongroomError } from "../errors.ts";
import type { CreateRequest } from "./open-upload.ts";

/** What an upload waits for. */
export interface UploadWait {
  /**
   * `busy`: other uploads hold every place of the collection; `window`: no upload window is open, or the one that is
   * has had its versions; `interval`: the last version is too young.
   */
  readonly reason: "busy" | "window" | "interval";
  /** When the next window opens or the interval ends, as the server says; undefined where it does not. */
  readonly opensAt: Date | undefined;
  /** Time zone of the collection, an IANA name; undefined where the server does not say it. */
  readonly timezone: string | undefined;
  /** How long it goes on waiting, in milliseconds. */
  readonly leftMs: number;
}

/** What a turn is waited for with. */
export interface TurnOptions {
  /** Name of the collection. */
  readonly collection: string;
  /** How long to wait in all, in milliseconds; 0: not at all. */
  readonly waitMs: number;
  /** Called when waiting begins, and when what is waited for changes. */
  readonly onWait: ((wait: UploadWait) => void) | undefined;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
}

/** Waits in two places with one limit. Afterwards the server's own refusal is what the caller gets. */
export class Turn {
  readonly #context: TransferContext;
  readonly #options: TurnOptions;
  #since: number | undefined;
  #reported: UploadWait["reason"] | undefined;

  constructor(context: TransferContext, options: TurnOptions) {
    this.#context = context;
    this.#options = options;
  }

  /**
   * Returns when the server would take the upload, as far as may be waited. A dump that begins before would be read
   * into nothing, or hold its snapshot for as long as the server is away. A server of an older version cannot be asked;
   * of it is only known that it answers, and whether the collection has a place and an open window.
   *
   * @param create - what is to be created
   */
  async come(create: CreateRequest): Promise<void> {
    const { connection, retrier, timings } = this.#context;
    const client = createClient(UploadService, connection.transport);
    const { signal } = this.#options;
    const check = async () => {
      await client.checkUpload({ upload: create }, { signal, timeoutMs: timings.unaryTimeoutMs });
    };
    try {
      await this.take(() => retrier.run("CheckUpload", signal, check));
    } catch (error) {
      if (!(error instanceof StrongroomError && error.code === "unimplemented")) throw error;
      await this.#comeToOlder();
    }
  }

  async #comeToOlder(): Promise<void> {
    const { connection, retrier, timings } = this.#context;
    const { collection, signal } = this.#options;
    const client = createClient(CollectionService, connection.transport);
    for (;;) {
      const answer = await retrier.run("GetCollection", signal, () =>
        client.getCollection({ collection }, { signal, timeoutMs: timings.unaryTimeoutMs }),
      );
      const reason = answer.collection === undefined ? undefined : obstacle(answer.collection);
      const opensAt = answer.collection?.nextWindowAt;
      if (reason === undefined) return;
      const at = opensAt && new Date(Number(opensAt.seconds) * 1000);
      const waited = await this.#wait(reason, at, answer.collection?.timezone);
      if (!waited) return;
    }
  }

  /** Creates the upload, or asks for it, again for as long as it may be waited: another may be quicker. */
  async take<T>(create: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await create();
      } catch (error) {
        const reason = error instanceof StrongroomError ? REFUSALS[error.reason] : undefined;
        if (reason === undefined) throw error;
        const { metadata } = error as StrongroomError;
        const opensAt = reason === "interval" ? metadata.next_version_at : metadata.next_window_at;
        const at = opensAt === undefined ? undefined : new Date(opensAt);
        if (!(await this.#wait(reason, at, metadata.timezone))) throw error;
      }
    }
  }

  /** Waits a while; returns whether it did. */
  async #wait(reason: UploadWait["reason"], opensAt: Date | undefined, timezone: string | undefined): Promise<boolean> {
    const { waitMs, onWait, signal } = this.#options;
    this.#since ??= performance.now();
    const leftMs = waitMs - (performance.now() - this.#since);
    if (leftMs <= 0) return false;
    if (this.#reported !== reason) {
      this.#reported = reason;
      onWait?.({ reason, opensAt, timezone, leftMs });
    }
    // Spread, so that those who wait for one place do not ask in step.
    const pause = this.#context.timings.waitEveryMs * (0.75 + Math.random() / 2);
    await sleep(Math.min(pause, leftMs), signal);
    return true;
  }
}

const REFUSALS: Readonly<Record<string, UploadWait["reason"]>> = {
  COLLECTION_BUSY: "busy",
  WINDOW_CLOSED: "window",
  WINDOW_FULL: "window",
  VERSION_TOO_SOON: "interval",
};

/** Why it would not take an upload now; undefined: it would, or only its own refusal says why not. */
function obstacle({ acceptsUploadsNow, frozen, limits, usage }: Collection): UploadWait["reason"] | undefined {
  if (frozen || limits === undefined) return undefined;
  if (!acceptsUploadsNow) return "window";
  const open = usage?.openUploads ?? 0;
  return open >= limits.maxParallelUploads && limits.maxParallelUploads > 0 ? "busy" : undefined;
}
