import type {
  ClientOptions,
  Collection,
  DownloadOptions,
  Session,
  StrongroomClient,
  UploadOptions,
  Version,
} from "@strongroom/client-sdk";
import * as sdk from "@strongroom/client-sdk";
import type { Sdk } from "../../src/context.ts";

// biome-ignore lint/suspicious/noExplicitAny: each test gives the few fields of a request that it looks at
type Method = (request: any, options: any) => unknown;

/** What the fake client answers; whatever is not given here fails the test when it is called. */
export interface FakeServer {
  readonly upload?: (options: UploadOptions) => Promise<sdk.UploadResult>;
  readonly download?: (options: DownloadOptions) => Promise<sdk.DownloadResult>;
  readonly login?: StrongroomClient["login"];
  readonly sessions?: Readonly<Record<string, Method>>;
  readonly versions?: Readonly<Record<string, Method>>;
  readonly collections?: Readonly<Record<string, Method>>;
  readonly uploads?: Readonly<Record<string, Method>>;
  readonly organizations?: Readonly<Record<string, Method>>;
  readonly admin?: Readonly<Record<string, Method>>;
}

/** The SDK with another client; errors, enumerations and key makers are the real ones. */
export function fakeSdk(server: FakeServer): { load: () => Promise<Sdk>; opened: ClientOptions[] } {
  const opened: ClientOptions[] = [];
  class FakeClient {
    readonly sessions = server.sessions ?? {};
    readonly versions = server.versions ?? {};
    readonly collections = server.collections ?? {};
    readonly uploads = server.uploads ?? {};
    readonly organizations = server.organizations ?? {};
    readonly admin = server.admin ?? {};

    constructor(options: ClientOptions) {
      opened.push(options);
    }

    upload(options: UploadOptions) {
      return wanted(server.upload, "upload")(options);
    }

    download(options: DownloadOptions) {
      return wanted(server.download, "download")(options);
    }

    login(options: Parameters<StrongroomClient["login"]>[0]) {
      return wanted(server.login, "login")(options);
    }

    close() {}
  }
  const module = { ...sdk, StrongroomClient: FakeClient } as unknown as Sdk;
  return { load: async () => module, opened };
}

function wanted<T>(method: T | undefined, name: string): T {
  if (method === undefined) throw new Error(`the test did not expect ${name}`);
  return method;
}

/** A time of day of 2026-01-01, as protobuf has it. */
export function at(time: string): Version["begunAt"] {
  return {
    $typeName: "google.protobuf.Timestamp",
    seconds: BigInt(Date.parse(`2026-01-01T${time}Z`) / 1000),
    nanos: 0,
  };
}

/** A version with everything a server would say. */
export function version(fields: Partial<Version> = {}): Version {
  return {
    $typeName: "strongroom.v1.Version",
    versionId: "0199-v",
    collection: "pg-main",
    number: 12n,
    filename: "pg-main-12.sql.zst.gpg",
    sizeBytes: 1_288_490_189n,
    segmentSizeBytes: 16_777_216n,
    segmentCount: 77,
    compositeSha256: new Uint8Array(32),
    contentEncoding: sdk.ContentEncoding.ZSTD,
    encryptionFormat: sdk.EncryptionFormat.OPENPGP,
    armored: false,
    begunAt: at("02:00:00"),
    committedAt: at("02:00:21"),
    uploadedBy: "alice",
    accessKey: "",
    sessionId: "s",
    labels: {},
    clientMetadata: {},
    state: 1,
    held: false,
    holdReason: "",
    aboveSoftLimit: false,
    ...fields,
  } as Version;
}

/** A collection with everything a server would say. */
export function collection(fields: Partial<Collection> = {}): Collection {
  return {
    $typeName: "strongroom.v1.Collection",
    name: "pg-main",
    collectionId: "0199-c",
    description: "the main database",
    organization: "",
    limits: {
      $typeName: "strongroom.v1.CollectionLimits",
      maxVersions: 5,
      maxVersionSizeBytes: 1_048_576n,
      maxCollectionSizeBytes: 10_485_760n,
      extraSpaceBytes: 5_242_880n,
      maxParallelUploads: 1,
    },
    windows: [],
    timezone: "UTC",
    acceptsUploadsNow: true,
    encryptionFormats: [sdk.EncryptionFormat.OPENPGP],
    rotationStrategy: sdk.RotationStrategy.FIFO,
    frozen: false,
    ...fields,
  } as Collection;
}

/** A session as login returns it. */
export function session(fields: Partial<Session> = {}): Session {
  return {
    $typeName: "strongroom.v1.Session",
    sessionId: "a".repeat(64),
    user: "alice",
    accessKey: "",
    scope: [],
    description: "strongroom CLI on test-host",
    address: "127.0.0.1",
    createdAt: at("00:00:00"),
    expiresAt: at("06:00:00"),
    ...fields,
  } as Session;
}

/** An environment with a session, so that nothing has to log in. */
export const LOGGED_IN = { STRONGROOM_TOKEN: "opaque-token", STRONGROOM_URL: "http://127.0.0.1:9" } as const;
