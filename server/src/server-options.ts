import type { StorageLocation } from "./adapters/stores.ts";
import type { PostgresLocation } from "./domain/postgres-url.ts";
import type { RateLimits } from "./domain/rate-limit.ts";

/** Options of the server, read once and handed on by main. */
export interface ServerOptions {
  readonly configDir: string;
  readonly database: DatabaseLocation;
  readonly configPollMs: number;
  /** The configuration directory is written elsewhere. */
  readonly configReadOnly: boolean;
  readonly storage: StorageLocation;
  readonly host: string;
  readonly port: number;
  /** Files for TLS; undefined without it. */
  readonly tls: TlsPaths | undefined;
  /** Addresses and ranges of proxies whose `X-Forwarded-For` is trusted. */
  readonly trustedProxies: readonly string[];
  /** Origins whose pages may call from a browser. */
  readonly corsOrigins: readonly string[];
  /** Whether chunks go through the generic layers of the Connect library. */
  readonly genericStreams: boolean;
  /** Undefined for the default, which depends on how many files the process may have open. */
  readonly maxConnections: number | undefined;
  /** Undefined for the default, which depends on the other. */
  readonly maxConnectionsPerAddress: number | undefined;
  readonly sessionMs: number;
  /** How long after its login a session can be valid at most, however often it is refreshed. */
  readonly sessionLifetimeMs: number;
  /** How long a session can be valid at most when its login asks for a time. */
  readonly sessionMaxMs: number;
  readonly tokenSecretFiles: readonly string[];
  /** The secret itself, from the environment; never beside the file. */
  readonly tokenSecret: string | undefined;
  readonly tokenSecretUse: "only" | "sign" | "verify";
  /** File with the secret of Backup Repository, whose tokens are taken as well. */
  readonly oldTokenSecretFile: string | undefined;
  /** File with the key that signs heads of the audit log; undefined for none. */
  readonly auditKeyFile: string | undefined;
  /** How long events of the audit log are kept. */
  readonly auditRetentionMs: number;
  /** Bytes. */
  readonly segmentSize: bigint;
  readonly sweepMs: number;
  /** Bytes that uploads leave free on the disks of this machine; undefined for the default, which depends on them. */
  readonly diskReserve: bigint | undefined;
  /** SHA-256 of the monitoring secret in hexadecimal. */
  readonly monitoringSecretSha256: string | undefined;
  /** File with the monitoring secret itself; never beside its digest. */
  readonly monitoringSecretFile: string | undefined;
  /** How stored versions are verified; undefined for not at all. */
  readonly verification: { readonly everyMs: number; readonly bytesPerSecond: bigint } | undefined;
  readonly httpUploads: HttpUploads;
  readonly shutdownGraceMs: number;
  readonly rateLimits: RateLimits;
  /** Addresses and ranges that webhooks may call although they are private or special. */
  readonly notifyAllowAddresses: readonly string[];
  readonly logLevel: string;
  /** `auto` is text on a terminal. */
  readonly logFormat: "auto" | "json" | "text";
}

/** How uploads over the HTTP API are taken. */
export interface HttpUploads {
  /** Bytes of the buffers of all of them. */
  readonly bufferBytes: number;
  /** How long a client has to stay after its body before that becomes a version, in milliseconds. */
  readonly commitGraceMs: number;
}

/** The defaults of `--http-buffer` and `--http-commit-grace`. */
export const DEFAULT_HTTP_UPLOADS: HttpUploads = { bufferBytes: 256 * 1024 * 1024, commitGraceMs: 2000 };

/** Where the database is, as its URL says. */
export type DatabaseLocation =
  /** Embedded; without a directory in memory. */
  | { readonly kind: "pglite"; readonly directory: string | undefined }
  | {
      readonly kind: "postgres";
      readonly location: PostgresLocation;
      readonly passwords: { readonly passwordFile: string | undefined; readonly passFile: string | undefined };
      readonly connections: number;
    };

/** Files for TLS, all PEM. */
export interface TlsPaths {
  readonly cert: string;
  readonly key: string;
  /** Authorities of client certificates; undefined when clients need none. */
  readonly clientCa: string | undefined;
}
