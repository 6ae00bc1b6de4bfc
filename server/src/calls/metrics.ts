import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { AllFigures } from "../app/collections/figures.ts";
import type { ConfigSource } from "../app/ports/config-source.ts";
import type { SweepReport } from "../app/upkeep/sweep.ts";
import type { ClockState } from "../domain/clock.ts";
import type { HealthStatus } from "../domain/health.ts";

/** Values of collections are given again for this long, in milliseconds, so that scraping is no load. */
const FRESH_MS = 10_000;
/** A scrape waits for the database no longer than this, in milliseconds. */
const LIMIT_MS = 5000;

const HEALTH_VALUES: Readonly<Record<HealthStatus, number>> = { ok: 0, warning: 1, failed: 2 };

/** How an upload went on. */
export type UploadEvent = "created" | "committed" | "aborted" | "refused" | "expired";

/** What {@link Metrics} asks when it is scraped. */
export interface MetricsSources {
  readonly figures: () => Promise<AllFigures>;
  readonly config: ConfigSource;
  /** What the last look at the database's clock found. */
  readonly clock: () => ClockState;
}

/** What monitoring shows of one notifier. */
export interface NotifierFigures {
  readonly notifier: string;
  readonly queued: number;
  /** How long the oldest of them waits, in milliseconds. */
  readonly ageMs: number;
  /** Whether the last attempt of this server failed. */
  readonly isFailing: boolean;
}

/**
 * The metrics of one server, in Prometheus' text format. Names and meanings are in `docs/operations.md`; labels have
 * few values: methods, codes and reasons of the contract, operations of stores, and the configured collections.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #sources: MetricsSources;
  #figures: { at: number; known: Promise<AllFigures> } | undefined;

  readonly #requests = this.#counter("requests_total", "Calls by method and code.", ["method", "code"]);
  readonly #durations = this.#histogram("request_duration_seconds", "How long calls took, streams to their end.", [
    "method",
  ]);
  readonly #refusals = this.#counter("refusals_total", "Calls that were refused or failed, by reason.", ["reason"]);
  readonly #received = this.#counter("received_bytes_total", "Bytes of ciphertext received, refused ones included.");
  readonly #sent = this.#counter("sent_bytes_total", "Bytes of ciphertext sent.");
  readonly #segments = this.#counter("segments_total", "Segments acknowledged.");
  readonly #uploads = this.#counter("uploads_total", "What became of uploads.", ["event"]);
  readonly #logins = this.#counter("logins_total", "Logins by outcome.", ["outcome"]);
  readonly #sweeps = this.#counter("sweeps_total", "Runs of the sweeper.", ["outcome"]);
  readonly #swept = this.#counter("swept_total", "What the sweeper did, in rows.", ["action"]);
  readonly #sweepFailures = this.#counter("sweep_failures_total", "What the sweeper could not do and tries again.");
  readonly #storeCalls = this.#counter("store_operations_total", "Calls of the store.", ["operation", "outcome"]);
  readonly #storeDurations = this.#histogram("store_operation_duration_seconds", "How long the store took.", [
    "operation",
  ]);
  readonly #databaseErrors = this.#counter("database_errors_total", "Calls of the database that failed because of it.");
  readonly #configReloads = this.#counter("config_reloads_total", "Changes of the configuration by outcome.", [
    "outcome",
  ]);
  readonly #configValid = this.#gauge("config_valid", "1 when what the source holds is in force, else 0.");
  readonly #configLoaded = this.#gauge("config_loaded_timestamp_seconds", "When the state in force was read.");
  readonly #clockRight = this.#gauge(
    "clock_right",
    "1 while the database's clock goes on as it should, else 0: then nothing is purged or expires.",
  );
  readonly #figuresKnown = this.#gauge(
    "collection_figures_known",
    "1 when the database gave the values of collections.",
  );
  readonly #collections = this.#gauge("collections", "Number of collections.", ["state"]);
  readonly #collectionBytes = this.#gauge("collection_bytes", "Bytes of a collection.", ["collection", "kind"]);
  readonly #collectionLimit = this.#gauge("collection_limit_bytes", "maxCollectionSize.", ["collection"]);
  readonly #collectionVersions = this.#gauge("collection_versions", "Live versions.", ["collection"]);
  readonly #collectionOpen = this.#gauge("collection_open_uploads", "Uploads that hold a place.", ["collection"]);
  readonly #collectionNewest = this.#gauge(
    "collection_newest_version_timestamp_seconds",
    "When the newest version was begun; 0 for none, and for a time beyond now.",
    ["collection"],
  );
  readonly #collectionNewestSize = this.#gauge(
    "collection_newest_version_bytes",
    "Size of the newest version; 0 for none.",
    ["collection"],
  );
  readonly #collectionDamaged = this.#gauge(
    "collection_damaged_versions",
    "Live versions that failed their last verification.",
    ["collection"],
  );
  readonly #collectionLost = this.#gauge(
    "collection_lost_commits",
    "Commits of which the store has neither the object nor its parts.",
    ["collection"],
  );
  readonly #collectionRolledBack = this.#gauge(
    "collection_rolled_back",
    "1 while the store shows that the database was rolled back, and nobody confirmed it.",
    ["collection"],
  );
  readonly #collectionHealth = this.#gauge("collection_health", "0 ok, 1 warning, 2 failed.", ["collection"]);

  readonly #notifications = this.#counter("notifications_total", "Attempts to tell a notifier, by outcome.", [
    "notifier",
    "outcome",
  ]);
  readonly #queued = this.#gauge("notifications_queued", "Notifications that wait for a notifier.", ["notifier"]);
  readonly #oldest = this.#gauge("notification_oldest_seconds", "How long the oldest of them waits; 0 for none.", [
    "notifier",
  ]);
  readonly #notifierUp = this.#gauge("notifier_up", "0 when the last attempt of this server failed, else 1.", [
    "notifier",
  ]);
  #notifiers: (() => Promise<readonly NotifierFigures[]>) | undefined;

  constructor(sources: MetricsSources) {
    this.#sources = sources;
    collectDefaultMetrics({ register: this.#registry });
    for (const outcome of ["ok", "failed"]) this.#sweeps.inc({ outcome }, 0);
    for (const outcome of ["ok", "failed", "busy"]) this.#logins.inc({ outcome }, 0);
    for (const event of ["created", "committed", "aborted", "refused", "expired"]) this.#uploads.inc({ event }, 0);
  }

  /** Content type of {@link Metrics.scrape}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Everything, as text. A database that does not answer costs the values of collections only. */
  async scrape(): Promise<string> {
    this.#showConfig();
    this.#clockRight.set(this.#sources.clock().status === "right" ? 1 : 0);
    await Promise.all([this.#showCollections(), this.#showNotifiers()]);
    return await this.#registry.metrics();
  }

  /** A call ended. `reason` is empty for one that was answered. */
  called(method: string, code: string, reason: string, seconds: number): void {
    this.#requests.inc({ method, code });
    this.#durations.observe({ method }, seconds);
    if (reason !== "") this.#refusals.inc({ reason });
  }

  /** Bytes of ciphertext were received. */
  received(bytes: number): void {
    this.#received.inc(bytes);
  }

  /** Bytes of ciphertext went. */
  sent(bytes: number): void {
    this.#sent.inc(bytes);
  }

  /** A segment was acknowledged. */
  segmentStored(): void {
    this.#segments.inc();
  }

  /** An upload went on, or `times` of them. */
  upload(event: UploadEvent, times = 1): void {
    this.#uploads.inc({ event }, times);
  }

  /** Somebody logged in or tried to. */
  login(outcome: "ok" | "failed" | "busy"): void {
    this.#logins.inc({ outcome });
  }

  /** The sweeper ran; undefined when it failed as a whole. */
  readonly swept = (report: SweepReport | undefined): void => {
    this.#sweeps.inc({ outcome: report === undefined ? "failed" : "ok" });
    if (report === undefined) return;
    const { failed, unknown: _unknown, deletions: _deletions, compared: _compared, ...actions } = report;
    this.#sweepFailures.inc(failed);
    for (const [action, times] of Object.entries(actions)) this.#swept.inc({ action }, times);
    this.upload("committed", report.committed);
    this.upload("expired", report.expired);
  };

  /** The store did something. */
  readonly stored = (operation: string, seconds: number, outcome: string): void => {
    this.#storeCalls.inc({ operation, outcome });
    this.#storeDurations.observe({ operation }, seconds);
  };

  /** The database failed. */
  readonly databaseFailed = (): void => {
    this.#databaseErrors.inc();
  };

  /** An attempt to tell a notifier ended. */
  readonly notified = (notifier: string, outcome: "delivered" | "failed" | "dropped"): void => {
    this.#notifications.inc({ notifier, outcome });
  };

  /** Says where what waits for notifiers is asked for. */
  showNotifiers(figures: () => Promise<readonly NotifierFigures[]>): void {
    this.#notifiers = figures;
  }

  async #showNotifiers(): Promise<void> {
    if (this.#notifiers === undefined) return;
    const figures = await within(LIMIT_MS, this.#notifiers()).catch(() => []);
    for (const gauge of [this.#queued, this.#oldest, this.#notifierUp]) gauge.reset();
    for (const { notifier, queued, ageMs, isFailing } of figures) {
      this.#queued.set({ notifier }, queued);
      this.#oldest.set({ notifier }, ageMs / 1000);
      this.#notifierUp.set({ notifier }, isFailing ? 0 : 1);
    }
  }

  #showConfig(): void {
    const status = this.#sources.config.status?.();
    if (status === undefined) return;
    this.#configReloads.reset();
    this.#configReloads.inc({ outcome: "ok" }, status.reloads);
    this.#configReloads.inc({ outcome: "refused" }, status.refusals);
    this.#configValid.set(status.problem === undefined ? 1 : 0);
    this.#configLoaded.set(status.loadedAt.getTime() / 1000);
  }

  async #showCollections(): Promise<void> {
    if (this.#figures === undefined || performance.now() - this.#figures.at > FRESH_MS)
      this.#figures = { at: performance.now(), known: this.#sources.figures() };
    const figures = await within(LIMIT_MS, this.#figures.known).catch(() => undefined);
    // What was shown before must not look as if it were still true.
    const shown = [this.#collectionBytes, this.#collectionLimit, this.#collectionVersions, this.#collectionOpen];
    shown.push(this.#collectionNewestSize, this.#collectionDamaged, this.#collectionLost, this.#collectionRolledBack);
    for (const gauge of [...shown, this.#collectionNewest, this.#collectionHealth, this.#collections]) gauge.reset();
    this.#figuresKnown.set(figures === undefined ? 0 : 1);
    if (figures === undefined) return;
    this.#collections.set({ state: "configured" }, figures.collections.length);
    this.#collections.set({ state: "frozen" }, figures.frozen);
    for (const { name: collection, ...of } of figures.collections) {
      this.#collectionBytes.set({ collection, kind: "stored" }, Number(of.storedBytes));
      this.#collectionBytes.set({ collection, kind: "reserved" }, Number(of.reservedBytes));
      this.#collectionBytes.set({ collection, kind: "removed" }, Number(of.trashBytes));
      this.#collectionLimit.set({ collection }, Number(of.limitBytes));
      this.#collectionVersions.set({ collection }, of.versions);
      this.#collectionOpen.set({ collection }, of.openUploads);
      this.#collectionNewest.set({ collection }, (of.newestAt?.getTime() ?? 0) / 1000);
      this.#collectionNewestSize.set({ collection }, Number(of.newestSize ?? 0n));
      this.#collectionDamaged.set({ collection }, of.damaged);
      this.#collectionLost.set({ collection }, of.lostCommits);
      this.#collectionRolledBack.set({ collection }, of.rolledBack ? 1 : 0);
      this.#collectionHealth.set({ collection }, HEALTH_VALUES[of.health]);
    }
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> {
    return new Counter({ name: `strongroom_${name}`, help, labelNames: [...labelNames], registers: [this.#registry] });
  }

  #gauge<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> {
    return new Gauge({ name: `strongroom_${name}`, help, labelNames: [...labelNames], registers: [this.#registry] });
  }

  #histogram<L extends string>(name: string, help: string, labelNames: readonly L[]): Histogram<L> {
    const buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
    const registers = [this.#registry];
    return new Histogram({ name: `strongroom_${name}`, help, labelNames: [...labelNames], buckets, registers });
  }
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
