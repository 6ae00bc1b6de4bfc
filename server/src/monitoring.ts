/** What monitoring adds to the parts of a server: readiness always, metrics where a secret protects them. */
import { createHash } from "node:crypto";
import { MeasuredBlobStore } from "./adapters/measured/measured-blob-store.ts";
import { measuredDatabase } from "./adapters/measured/measured-database.ts";
import { collectionFigures } from "./app/collections/figures.ts";
import type { BlobStore } from "./app/ports/blob-store.ts";
import type { ConfigSource } from "./app/ports/config-source.ts";
import type { Database } from "./app/ports/database.ts";
import type { Log } from "./app/settings.ts";
import { Readiness } from "./app/upkeep/readiness.ts";
import type { Monitoring } from "./transport/http-endpoints.ts";
import { Metrics } from "./transport/metrics.ts";

/** The parts that monitoring looks at. */
export interface MonitoredParts {
  readonly database: Database;
  readonly store: BlobStore;
  readonly config: ConfigSource;
  readonly log: Log;
  /** SHA-256 of the monitoring secret in hexadecimal. */
  readonly monitoringSecretSha256?: string | undefined;
}

/** Store and database to be used instead, and what the rest of the server tells and asks. */
export interface ServerMonitoring {
  readonly database: Database;
  readonly store: BlobStore;
  readonly metrics: Metrics | undefined;
  readonly readiness: Readiness;
  readonly monitoring: Omit<Monitoring, "stopping" | "take">;
}

/** Puts measuring around store and database, if anybody can read what is measured. */
export function monitored(parts: MonitoredParts, newId: () => string): ServerMonitoring {
  const { config, log, monitoringSecretSha256: secretSha256 } = parts;
  const metrics =
    secretSha256 === undefined
      ? undefined
      : new Metrics({ figures: async () => await collectionFigures(parts), config });
  const database = metrics === undefined ? parts.database : measuredDatabase(parts.database, metrics.databaseFailed);
  const store = metrics === undefined ? parts.store : new MeasuredBlobStore(parts.store, metrics.stored);
  const readiness = new Readiness({ database, store, config, log, newId });
  const ready = async () => await readiness.check();
  return { database, store, metrics, readiness, monitoring: { secretSha256, ready, metrics } };
}

/** SHA-256 in hexadecimal of the secret in a file's text, without the end of its line. @throws Error when it is empty */
export function secretDigest(text: string): string {
  const secret = text.replace(/\r?\n$/, "");
  if (secret === "") throw new Error("the file of --monitoring-secret-file is empty");
  return createHash("sha256").update(secret).digest("hex");
}
