/** The entry to the SDK. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { AdminService } from "@strongroom/gen/strongroom/v1/admin_service_pb";
import { CollectionService } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { OrganizationService } from "@strongroom/gen/strongroom/v1/organization_service_pb";
import {
  type ScopeElementSchema,
  type Session,
  SessionService,
} from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { MAX_TRANSFER_MESSAGE_BYTES } from "@strongroom/protocol/limits";
import { LinkedController } from "./abort.ts";
import { olderServer, toStrongroomError } from "./connection/error-mapping.ts";
import type { ProxyEnvironment } from "./connection/proxy.ts";
import { Retrier, type RetryEvent } from "./connection/retry.ts";
import { DEFAULT_TIMINGS, type Timings } from "./connection/timings.ts";
import { checkServerUrl, type TokenSource } from "./connection/token.ts";
import type { TransferContext } from "./connection/transfer-context.ts";
import { type Connection, createConnection, DOWNLOAD_WINDOW_BYTES, type TlsOptions } from "./connection/transport.ts";
import { type DownloadOptions, type DownloadResult, download } from "./download/download.ts";
import { InvalidRequestError, StrongroomError, UnavailableError } from "./errors.ts";
import { type UploadOptions, type UploadResult, upload } from "./upload/upload.ts";

/** How to reach a server, and how patient to be. */
export interface ClientOptions {
  /** Address of the server, for example `https://backups.example.org` or `http://127.0.0.1:8080`. */
  url?: string;
  /** Several addresses of one installation instead: the first is used for as long as it is well, then the next one. */
  urls?: readonly string[];
  /**
   * Session token, or a function that is asked before every call, so that a token may be renewed during a long upload.
   */
  token?: TokenSource;
  /** Authorities and a certificate of this client, for `https` addresses. */
  tls?: TlsOptions;
  /**
   * Variables that name proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), most likely `process.env`; without it no
   * proxy is used.
   */
  proxyEnvironment?: ProxyEnvironment;
  /** Called before every wait for a retry, of all uploads and downloads. */
  onRetry?: (event: RetryEvent) => void;
  /**
   * How long an upload or download goes on trying while nothing succeeds, in milliseconds; default 15 minutes. It
   * counts from the first attempt to connect on. When it is given, it holds for logins too.
   */
  giveUpAfterMs?: number;
  /**
   * Sends and takes chunks through the generic layers of the Connect library: slower, and the same otherwise; to
   * compare, and to find out where a problem comes from. Default false.
   */
  genericStreams?: boolean;
}

/** What a session can be narrowed to. */
export type ScopeElementInit = MessageInitShape<typeof ScopeElementSchema>;

/** Who logs in. */
export interface LoginOptions {
  /** Name of the user, or `user$key` for an access key. */
  username: string;
  /** The password. */
  password: string;
  /** What the session is for; at most 255 characters. */
  description?: string;
  /** What to narrow the session to; default everything the user may do. */
  scope?: ScopeElementInit[];
  /**
   * How long the session lasts, in milliseconds, from one minute up to what the server allows; no refresh prolongs it.
   * Default the usual time of the server.
   */
  lifetimeMs?: number | undefined;
}

/** A new session. */
export interface LoginResult {
  /** The token; keep it secret. */
  token: string;
  /** The session. */
  session: Session;
}

/** Sessions end at whole seconds; in milliseconds. */
const LIFETIME_ROUNDING_MS = 2000;

/** How long retries go on by default, in milliseconds: as long as a lease. */
const GIVE_UP_AFTER_MS = 15 * 60_000;

/**
 * A client of one installation. It opens no connection before the first call, and an idle one does not keep the process
 * alive.
 *
 * The generated clients (`uploads`, `versions`, `collections`, `sessions`, `admin`) share one connection, make each call once,
 * and throw `ConnectError`; give that to {@link toStrongroomError}. `login`, `upload` and `download` throw the SDK's
 * own errors; each upload and download has a connection of its own.
 */
export class StrongroomClient {
  /** Address of the server; the first of several. */
  readonly url: string;
  /** Uploads, call by call; {@link StrongroomClient.upload} does it all. */
  readonly uploads: Client<typeof UploadService>;
  /** Versions: list, describe, delete, read. */
  readonly versions: Client<typeof VersionService>;
  /** Collections and their health. */
  readonly collections: Client<typeof CollectionService>;
  /** Sessions: who am I, list, refresh, revoke. */
  readonly sessions: Client<typeof SessionService>;
  /** Administration: configuration objects, and what concerns a whole server. */
  readonly admin: Client<typeof AdminService>;
  /** OrganizationService. */
  readonly organizations: Client<typeof OrganizationService>;

  readonly #urls: readonly string[];
  readonly #options: ClientOptions;
  readonly #timings: Timings;
  readonly #connection: Connection;
  readonly #closed = new AbortController();

  /**
   * @param options - the server, the session, the patience
   * @param timings - for tests
   * @throws InvalidRequestError when an address is not one of a server, or there is none, or `tls` cannot be used
   */
  constructor(options: ClientOptions, timings: Partial<Timings> = {}) {
    this.#urls = addressesOf(options);
    this.url = this.#urls[0]!;
    this.#options = options;
    this.#timings = { ...DEFAULT_TIMINGS, ...timings };
    this.#connection = createConnection({
      urls: this.#urls,
      token: options.token,
      tls: options.tls,
      proxyEnvironment: options.proxyEnvironment,
      genericStreams: options.genericStreams,
      timings: this.#timings,
      repeat: true,
    });
    const { transport } = this.#connection;
    this.uploads = createClient(UploadService, transport);
    this.versions = createClient(VersionService, transport);
    this.collections = createClient(CollectionService, transport);
    this.sessions = createClient(SessionService, transport);
    this.admin = createClient(AdminService, transport);
    this.organizations = createClient(OrganizationService, transport);
  }

  /**
   * Checks a password and gets a token. It is given to the caller; this client goes on with its own. A server that is
   * away is waited for as long as `giveUpAfterMs` says; without it there is one attempt.
   * @throws AuthenticationError when user name and password do not fit, whatever is wrong with them
   * @throws InvalidRequestError when an older server does not know lifetimes; the session is ended again
   */
  async login(options: LoginOptions): Promise<LoginResult> {
    const { username, password, description = "", scope = [], lifetimeMs } = options;
    const lifetime = lifetimeMs === undefined ? undefined : durationFromMs(lifetimeMs);
    const call = () =>
      this.sessions.login(
        { username, password, description, scope, ...(lifetime === undefined ? {} : { lifetime }) },
        { signal: this.#closed.signal, timeoutMs: this.#timings.unaryTimeoutMs },
      );
    const { giveUpAfterMs } = this.#options;
    try {
      // Every attempt counts against the budget of logins only when it gets to the server, which then answers.
      const { token, session } =
        giveUpAfterMs === undefined
          ? await call()
          : await this.#retrier(this.#connection, giveUpAfterMs).run("Login", this.#closed.signal, call);
      if (token === "" || session === undefined) throw new UnavailableError(`${this.url} answered without a session.`);
      if (lifetimeMs !== undefined) await this.#requireLifetime(token, session, lifetimeMs);
      return { token, session };
    } catch (error) {
      throw toStrongroomError(error, { url: this.#connection.url });
    }
  }

  /** A server that does not know lifetimes would give a session of its own length for one that was to end in an hour. */
  async #requireLifetime(token: string, session: Session, lifetimeMs: number): Promise<void> {
    const at = (time: Session["expiresAt"]) => (time === undefined ? 0 : timestampMs(time));
    if (Math.abs(at(session.expiresAt) - at(session.createdAt) - lifetimeMs) <= LIFETIME_ROUNDING_MS) return;
    const options = { headers: { authorization: `Bearer ${token}` }, timeoutMs: this.#timings.unaryTimeoutMs };
    await this.sessions.revokeSession({}, options).catch(() => {});
    const message = olderServer(this.#connection.url, "does not know how long a session shall last");
    throw new InvalidRequestError(message, { code: "unimplemented" });
  }

  /**
   * Encrypts a dump and stores it as a new version. See `upload.ts` for memory and failures.
   *
   * @returns the version, once it is published
   * @throws SourceError, MinSizeError, EncryptionError, QuotaExceededError, PolicyRefusedError, UnavailableError, ...
   */
  async upload(options: UploadOptions): Promise<UploadResult> {
    return this.#transfer(options, {}, upload);
  }

  /**
   * Reads a version, verifies it, and decrypts it on the way. See `download.ts` for what is verified when.
   *
   * @returns the version, once all of it was verified
   * @throws IntegrityError, DecryptionError, NotFoundError, UnavailableError, ...
   */
  async download(options: DownloadOptions): Promise<DownloadResult> {
    return this.#transfer(options, { windowBytes: DOWNLOAD_WINDOW_BYTES }, download);
  }

  /** Ends the connection and everything under way; uploads that are not committed yet are aborted. */
  close(): void {
    this.#closed.abort(new StrongroomError("The client was closed.", { code: "canceled" }));
    this.#connection.reset();
  }

  async #transfer<O extends { signal?: AbortSignal }, R>(
    options: O,
    connectionOptions: { windowBytes?: number },
    transfer: (context: TransferContext, options: O) => Promise<R>,
  ): Promise<R> {
    const { token, tls, proxyEnvironment, genericStreams, giveUpAfterMs = GIVE_UP_AFTER_MS } = this.#options;
    const ending = new LinkedController(options.signal, this.#closed.signal);
    const connection = createConnection({
      urls: this.#urls,
      token,
      tls,
      proxyEnvironment,
      genericStreams,
      timings: this.#timings,
      readMaxBytes: MAX_TRANSFER_MESSAGE_BYTES,
      ...connectionOptions,
    });
    const retrier = this.#retrier(connection, giveUpAfterMs);
    try {
      return await transfer({ connection, retrier, timings: this.#timings }, { ...options, signal: ending.signal });
    } finally {
      ending.unlink();
    }
  }

  #retrier(connection: Connection, giveUpAfterMs: number): Retrier {
    const { token, onRetry } = this.#options;
    return new Retrier({
      timings: this.#timings,
      giveUpAfterMs,
      tokenMayChange: typeof token === "function",
      url: connection.url,
      onRetry,
      connection,
    });
  }
}

/** The addresses, checked, each once. */
function addressesOf({ url, urls = [] }: ClientOptions): string[] {
  const given = url === undefined ? urls : [url, ...urls];
  // Without any, the message of an empty one is the right one.
  return [...new Set((given.length === 0 ? [""] : given).map(checkServerUrl))];
}
