/**
 * Every RPC x role x access key x scope, over the network, compared with the rule written down in
 * `support/access-oracle.ts`. Everything that must be refused is tried first, and must leave everything as it was.
 */
import { createHash } from "node:crypto";
import { ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@strongroom/gen/google/rpc/error_details_pb";
import { Role as RoleMessage } from "@strongroom/gen/strongroom/v1/resources_pb";
import { ObjectType } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { chunked, compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import test from "ava";
import { commitUpload } from "../src/app/uploads/commit-upload.ts";
import { createUpload } from "../src/app/uploads/create-upload.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { writeSegment } from "../src/app/uploads/write-segment.ts";
import type { Principal } from "../src/domain/access.ts";
import type { ObjectGrant, Role, User } from "../src/domain/configuration.ts";
import { SERVICES } from "../src/transport/router.ts";
import {
  handlesOwn,
  isSystemAdmin,
  isUserManager,
  may,
  outcome,
  type RolesByCollection,
  type Subject,
  sees,
} from "./support/access-oracle.ts";
import { collection, MIB, principal, user } from "./support/harness.ts";
import { bearer, framesOf, LiveServer } from "./support/live-server.ts";

const VAULT = "vault";
/** As the vault, but no window is open. */
const SHUT = "shut";
const OTHER = "other";
const UNKNOWN = "unknown";
const HEALTH_SECRET = "monitoring secret";
const NO_ID = "0".repeat(64);
const NO_UPLOAD = "00000000-0000-4000-8000-000000000000";

// --- Who: what a user has, what an access key and a scope leave of it.

interface Standing {
  readonly name: string;
  readonly system?: readonly Role[];
  readonly list?: readonly Role[];
}

const OBJECT_ROLES = ["collectionManager", "backupUploader", "backupDownloader", "uploadsAnytime"] as const;
const standings: readonly Standing[] = [
  { name: "nothing" },
  ...(["systemAdmin", "userManager", ...OBJECT_ROLES] as const).map((role) => ({
    name: `${role}-system`,
    system: [role],
  })),
  ...OBJECT_ROLES.map((role) => ({ name: `${role}-list`, list: [role] })),
];
/** Standings that the configuration's files do not let through, or that are near misses; without the whole product. */
const oddStandings: readonly Standing[] = [
  { name: "systemAdmin-list", list: ["systemAdmin"] },
  { name: "userManager-list", list: ["userManager"] },
  { name: "two", system: ["backupDownloader"], list: ["uploadsAnytime"] },
];

const both = (...roles: Role[]) => ({ [VAULT]: roles, [SHUT]: roles });
const keys: Readonly<Record<string, Readonly<Record<string, readonly Role[]>> | undefined>> = {
  "": undefined,
  full: both("collectionManager"),
  uploader: both("backupUploader"),
  elsewhere: { [OTHER]: ["collectionManager"] },
  noroles: both(),
  noobjects: {},
};
const scopes: Readonly<Record<string, Readonly<Record<string, readonly Role[]>> | undefined>> = {
  none: undefined,
  matching: both("collectionManager"),
  uploader: both("backupUploader"),
  downloader: both("backupDownloader"),
  elsewhere: { [OTHER]: ["collectionManager"] },
  admin: both("systemAdmin"),
};
/** Combinations left out of the whole product. */
const skipped = (key: string, scope: string) =>
  (key === "noobjects" && scope !== "none") ||
  (scope === "admin" && key !== "") ||
  (scope === "downloader" && key !== "uploader");

/** The vault of one user. Each has their own, so that thousands of calls do not wait for one collection. */
const nameFor = (userName: string, name: string) => (name === VAULT || name === SHUT ? `${name}-of-${userName}` : name);

const grants = (userName: string, roles: RolesByCollection | undefined): ObjectGrant[] =>
  Object.entries(roles ?? {}).map(([name, of]) => ({
    type: "collection",
    name: nameFor(userName, name),
    roles: of as readonly Role[],
  }));

function userOf({ name, system = [] }: Standing): User {
  const accessKeys = Object.entries(keys).flatMap(([key, roles]) =>
    roles === undefined ? [] : [{ name: key, passwordHash: "hash of a key", objects: grants(name, roles) }],
  );
  return user(name, { roles: system, accessKeys, passwordHash: "hash" });
}

// --- The world they act in.

const everybody = [...standings, ...oddStandings];
const wide = {
  maxParallelUploads: 1000,
  maxBackupsCount: 1000,
  maxOneVersionSize: BigInt(4 * MIB),
  maxCollectionSize: BigInt(4000 * MIB),
};
const shut = [{ from: "0 12 * * *", durationMs: 3_600_000 }];

/** Uploads of one user and access key. */
interface Owned {
  /** Open, to be written to, renewed and looked at. */
  readonly open: string;
  /** Whole, to be committed. */
  readonly whole: string;
  /** Already a version. */
  readonly committed: string;
  /** To be aborted. */
  readonly doomed: string;
}

const MESSAGE = openpgpMessage(300);
const SEGMENTS = cutSegments(MESSAGE, MIB);
const COMMIT = { size: BigInt(MESSAGE.length), compositeSha256: compositeOf(SEGMENTS) };

/** The same user and access key with every right, to prepare what the real one then meets. */
function mighty(userName: string, accessKey: string): Principal {
  const objects = grants(userName, both("collectionManager"));
  const accessKeys = accessKey === "" ? [] : [{ name: accessKey, passwordHash: undefined, objects }];
  return principal(user(userName, { roles: ["systemAdmin"], accessKeys }), { accessKey });
}

async function begin(live: LiveServer, by: Principal): Promise<string> {
  const input = {
    collection: nameFor(by.user.name, VAULT),
    requestId: "",
    expectedSize: 0n,
    filename: "",
    contentEncoding: "none" as const,
    labels: {},
    clientMetadata: {},
  };
  return (await createUpload(live.deps, by, input)).upload.id;
}

async function owned(live: LiveServer, userName: string, accessKey: string): Promise<Owned> {
  const by = mighty(userName, accessKey);
  const whole = async () => {
    const uploadId = await begin(live, by);
    const segment = SEGMENTS[0]!;
    await writeSegment(live.deps, by, { uploadId, ...segment }, chunked(segment.bytes), new AbortController().signal);
    return uploadId;
  };
  const committed = await whole();
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  await commitUpload({ ...live.deps, log }, by, { uploadId: committed, ...COMMIT });
  return { open: await begin(live, by), whole: await whole(), committed, doomed: await begin(live, by) };
}

/** One caller with what is theirs. */
interface Caller {
  readonly title: string;
  readonly who: Subject;
  readonly userName: string;
  readonly key: string;
  /** Also the sparse cases are tried. */
  readonly inFull: boolean;
  /** What every call that wants a session is refused with. */
  readonly refusedWith: string | undefined;
  readonly token: string | undefined;
  /** A session like the caller's, to be ended by itself. */
  readonly twin: { id: string; token: string } | undefined;
  readonly uploads: Owned;
  /** Uploads of the same user with another access key. */
  readonly ofOtherKey: Owned;
  /** Sessions of the same user to look for and to end. */
  readonly plain: Ended;
  readonly ofOwnKey: Ended;
  readonly ofKeyFull: Ended;
}

interface Ended {
  /** Stays, and is seen in lists. */
  readonly seen: string;
  /** Is ended. */
  readonly ended: string;
}

interface World {
  readonly live: LiveServer;
  readonly strangers: Owned;
  readonly strangersSession: string;
}

// --- What they do, and what must come of it.

interface Case {
  readonly rpc: string;
  readonly title: string;
  /** "ok", with the answer, or the reason of the refusal, for a caller whose session is valid. */
  readonly expected: (caller: Caller) => string;
  /** Without a session; by default a session is demanded. */
  readonly anonymous?: string;
  /** The answer hangs on nothing that access key or scope could change: tried with few of them, to be quick. */
  readonly sparse?: boolean;
  /** A bad session is not looked at. */
  readonly ignoresSession?: boolean;
  readonly call: (world: World, caller: Caller, options: Options) => Promise<string>;
}

interface Options {
  readonly headers: Record<string, string>;
}

/** Runs a call of which only the success matters. */
const done = async (call: Promise<unknown>): Promise<string> => {
  await call;
  return "ok";
};
const inVault = (act: Parameters<typeof outcome>[1]) => (caller: Caller) => outcome(caller.who, act, VAULT);
const seesVault = ({ who }: Caller) => (sees(who, VAULT) ? "ok" : "COLLECTION_NOT_FOUND");
const always = (answer: string) => () => answer;

/** Objects are for systemAdmin, users for userManager too, never with an access key or a scope. */
const administers =
  (answer: string, mayUserManager = true) =>
  ({ who }: Caller) =>
    isSystemAdmin(who) || (mayUserManager && isUserManager(who)) ? answer : "ACCESS_DENIED";

/** The server itself is for systemAdmin, never with an access key or a scope. */
const operates = ({ who }: Caller) => (isSystemAdmin(who) ? "ok" : "ACCESS_DENIED");

const vaultOf = ({ userName }: Caller) => nameFor(userName, VAULT);

type UploadRpc = "WriteSegment" | "RenewUpload" | "GetUpload" | "CommitUpload" | "AbortUpload";
const uploadCalls: Record<UploadRpc, (world: World, uploadId: string, options: Options) => Promise<unknown>> = {
  WriteSegment: async ({ live }, id, options) => {
    const write = async () => await live.clients.uploads.writeSegment(framesOf(id, SEGMENTS[0]!), options);
    // Several sessions of one user and key write at once here, and the newest attempt wins.
    for (;;) {
      const { answer } = await answerOf(done(write()));
      if (answer !== "SEGMENT_SUPERSEDED") return await write();
    }
  },
  RenewUpload: ({ live }, uploadId, options) => live.clients.uploads.renewUpload({ uploadId }, options),
  GetUpload: ({ live }, uploadId, options) => live.clients.uploads.getUpload({ uploadId }, options),
  CommitUpload: ({ live }, uploadId, options) => {
    const { size: sizeBytes, compositeSha256 } = COMMIT;
    return live.clients.uploads.commitUpload({ uploadId, sizeBytes, compositeSha256 }, options);
  },
  AbortUpload: ({ live }, uploadId, options) => live.clients.uploads.abortUpload({ uploadId }, options),
};
const usualUpload = (of: Owned): Record<UploadRpc, string> => ({
  WriteSegment: of.open,
  RenewUpload: of.open,
  GetUpload: of.open,
  CommitUpload: of.whole,
  AbortUpload: of.doomed,
});

/** Uploads of others are nobody's business, but who manages the collection may end them. */
const endsOthers = (name: UploadRpc, manages: (caller: Caller) => boolean) => (caller: Caller) =>
  name === "AbortUpload" && manages(caller) ? "ok" : "UPLOAD_NOT_FOUND";

const uploadCases: Case[] = (Object.keys(uploadCalls) as UploadRpc[]).flatMap((name): Case[] => {
  const rpc = `strongroom.v1.UploadService/${name}`;
  const call = uploadCalls[name];
  return [
    {
      rpc,
      title: "one's own",
      expected: inVault("upload"),
      call: (world, { uploads }, options) => done(call(world, usualUpload(uploads)[name], options)),
    },
    {
      rpc,
      title: "of the same user with another access key",
      sparse: name !== "AbortUpload",
      expected: endsOthers(name, (caller) => may(caller.who, "manage", VAULT)),
      call: (world, { ofOtherKey }, options) => done(call(world, usualUpload(ofOtherKey)[name], options)),
    },
    {
      rpc,
      title: "of another user",
      expected: endsOthers(name, (caller) => may(caller.who, "manage", "the stranger's vault")),
      sparse: name !== "AbortUpload",
      call: (world, _caller, options) => done(call(world, usualUpload(world.strangers)[name], options)),
    },
    {
      rpc,
      title: "that does not exist",
      expected: always("UPLOAD_NOT_FOUND"),
      sparse: true,
      call: (world, _caller, options) => done(call(world, NO_UPLOAD, options)),
    },
  ];
});

async function create(live: LiveServer, caller: Caller, name: string, options: Options): Promise<string> {
  const { upload } = await live.clients.uploads.createUpload({ collection: nameFor(caller.userName, name) }, options);
  // Not left open, so that thousands of them are no load.
  await abortUpload(live.deps, mighty(caller.userName, caller.key), { uploadId: upload!.uploadId, reason: "" });
  return "ok";
}

async function check(live: LiveServer, caller: Caller, name: string, options: Options): Promise<string> {
  const upload = { collection: nameFor(caller.userName, name) };
  return await done(live.clients.uploads.checkUpload({ upload }, options));
}

async function read(live: LiveServer, name: string, number: bigint, options: Options): Promise<string> {
  let bytes = 0;
  for await (const { frame } of live.clients.versions.readVersion(
    { collection: name, which: { case: "number", value: number } },
    options,
  )) {
    if (frame.case === "chunk") bytes += frame.value.length;
  }
  return bytes === MESSAGE.length ? "ok" : `${bytes} bytes`;
}

const cases: readonly Case[] = [
  {
    rpc: "strongroom.v1.UploadService/CreateUpload",
    title: "in the vault",
    expected: inVault("upload"),
    call: ({ live }, caller, options) => create(live, caller, VAULT, options),
  },
  {
    rpc: "strongroom.v1.UploadService/CreateUpload",
    title: "outside windows",
    expected: ({ who }) => outcome(who, "upload outside windows", SHUT),
    call: ({ live }, caller, options) => create(live, caller, SHUT, options),
  },
  {
    rpc: "strongroom.v1.UploadService/CreateUpload",
    title: "in a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, caller, options) => create(live, caller, UNKNOWN, options),
  },
  {
    rpc: "strongroom.v1.UploadService/CheckUpload",
    title: "in the vault",
    expected: inVault("upload"),
    call: ({ live }, caller, options) => check(live, caller, VAULT, options),
  },
  {
    rpc: "strongroom.v1.UploadService/CheckUpload",
    title: "outside windows",
    expected: ({ who }) => outcome(who, "upload outside windows", SHUT),
    call: ({ live }, caller, options) => check(live, caller, SHUT, options),
  },
  {
    rpc: "strongroom.v1.UploadService/CheckUpload",
    title: "in a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, caller, options) => check(live, caller, UNKNOWN, options),
  },
  ...uploadCases,
  {
    rpc: "strongroom.v1.UploadService/ListUploads",
    title: "of the vault: one's own, and all for who manages it",
    expected: ({ who }) => (sees(who, VAULT) ? `ok true ${may(who, "manage", VAULT)}` : "COLLECTION_NOT_FOUND"),
    call: async ({ live }, caller, options) => {
      const page = await live.clients.uploads.listUploads({ collection: vaultOf(caller), pageSize: 1000 }, options);
      const ids = page.uploads.map(({ uploadId }) => uploadId);
      return `ok ${ids.includes(caller.uploads.open)} ${ids.includes(caller.ofOtherKey.open)}`;
    },
  },
  {
    rpc: "strongroom.v1.UploadService/ListUploads",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) => done(live.clients.uploads.listUploads({ collection: UNKNOWN }, options)),
  },
  {
    rpc: "strongroom.v1.UploadService/CommitUpload",
    title: "again",
    expected: inVault("upload"),
    call: (world, { uploads }, options) => done(uploadCalls.CommitUpload(world, uploads.committed, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ListVersions",
    title: "of the vault",
    expected: seesVault,
    call: ({ live }, caller, options) =>
      done(live.clients.versions.listVersions({ collection: vaultOf(caller), pageSize: 1 }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ListVersions",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) => done(live.clients.versions.listVersions({ collection: UNKNOWN }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/GetVersion",
    title: "of the vault",
    expected: seesVault,
    call: ({ live }, caller, options) =>
      done(
        live.clients.versions.getVersion(
          { collection: vaultOf(caller), which: { case: "number", value: 2n } },
          options,
        ),
      ),
  },
  {
    rpc: "strongroom.v1.VersionService/ListSegmentDigests",
    title: "of the vault",
    expected: seesVault,
    call: ({ live }, caller, options) =>
      done(
        live.clients.versions.listSegmentDigests(
          { collection: vaultOf(caller), which: { case: "number", value: 2n } },
          options,
        ),
      ),
  },
  {
    rpc: "strongroom.v1.VersionService/ReadVersion",
    title: "of the vault",
    expected: inVault("download"),
    call: ({ live }, caller, options) => read(live, vaultOf(caller), 2n, options),
  },
  {
    rpc: "strongroom.v1.VersionService/DeleteVersion",
    title: "of the vault",
    expected: inVault("manage"),
    call: ({ live }, caller, options) =>
      done(live.clients.versions.deleteVersion({ collection: vaultOf(caller), number: 1n }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/UndeleteVersion",
    title: "of the vault",
    expected: inVault("manage"),
    call: ({ live }, caller, options) =>
      done(live.clients.versions.undeleteVersion({ collection: vaultOf(caller), number: 1n }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ConfirmVersion",
    title: "of the vault",
    expected: inVault("manage"),
    call: ({ live }, caller, options) =>
      done(live.clients.versions.confirmVersion({ collection: vaultOf(caller), number: 2n }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ListKeys",
    title: "of the vault",
    expected: seesVault,
    call: ({ live }, caller, options) => done(live.clients.versions.listKeys({ collection: vaultOf(caller) }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/HoldVersion",
    title: "of the vault",
    expected: inVault("manage"),
    call: ({ live }, caller, options) =>
      done(live.clients.versions.holdVersion({ collection: vaultOf(caller), number: 2n, reason: "kept" }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/HoldVersion",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) =>
      done(live.clients.versions.holdVersion({ collection: UNKNOWN, number: 1n, reason: "kept" }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ReleaseVersion",
    title: "of the vault",
    expected: inVault("manage"),
    call: ({ live }, caller, options) =>
      done(live.clients.versions.releaseVersion({ collection: vaultOf(caller), number: 3n }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ReleaseVersion",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) =>
      done(live.clients.versions.releaseVersion({ collection: UNKNOWN, number: 1n }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/ConfirmVersion",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) =>
      done(live.clients.versions.confirmVersion({ collection: UNKNOWN, number: 1n }, options)),
  },
  {
    rpc: "strongroom.v1.VersionService/UndeleteVersion",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) =>
      done(live.clients.versions.undeleteVersion({ collection: UNKNOWN, number: 1n }, options)),
  },
  {
    rpc: "strongroom.v1.CollectionService/ListCollections",
    title: "those one sees",
    expected: ({ who }) => `ok ${[OTHER, SHUT, VAULT].filter((name) => sees(who, name)).join(" ")}`,
    call: async ({ live }, { userName }, options) => {
      const { collections } = await live.clients.collections.listCollections({}, options);
      // Whoever has a role for the system sees the vaults of all.
      const names = collections.map((c) => c.name);
      return `ok ${[OTHER, SHUT, VAULT].filter((name) => names.includes(nameFor(userName, name))).join(" ")}`;
    },
  },
  ...[VAULT, OTHER, UNKNOWN].map(
    (name): Case => ({
      rpc: "strongroom.v1.CollectionService/GetCollection",
      title: name,
      sparse: name === UNKNOWN,
      expected: ({ who }) => (name !== UNKNOWN && sees(who, name) ? "ok" : "COLLECTION_NOT_FOUND"),
      call: ({ live }, { userName }, options) =>
        done(live.clients.collections.getCollection({ collection: nameFor(userName, name) }, options)),
    }),
  ),
  {
    rpc: "strongroom.v1.CollectionService/ConfirmPolicy",
    title: "of the vault",
    expected: ({ who }) => {
      const answer = outcome(who, "manage", VAULT);
      return answer === "ok" && !isSystemAdmin(who) ? "ACCESS_DENIED" : answer;
    },
    call: ({ live }, caller, options) =>
      done(live.clients.collections.confirmPolicy({ collection: vaultOf(caller), removes: 0 }, options)),
  },
  {
    rpc: "strongroom.v1.CollectionService/ConfirmPolicy",
    title: "of a collection that does not exist",
    expected: always("COLLECTION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) =>
      done(live.clients.collections.confirmPolicy({ collection: UNKNOWN, removes: 0 }, options)),
  },
  {
    rpc: "strongroom.v1.CollectionService/GetCollectionHealth",
    title: "by session",
    expected: seesVault,
    call: ({ live }, caller, options) =>
      done(live.clients.collections.getCollectionHealth({ collection: vaultOf(caller) }, options)),
  },
  ...(
    [
      ["the right secret", VAULT, HEALTH_SECRET, always("ok"), "ok"],
      ["a wrong secret", VAULT, "wrong", seesVault, "COLLECTION_NOT_FOUND"],
      [
        "the secret of another collection",
        OTHER,
        HEALTH_SECRET,
        ({ who }: Caller) => (sees(who, OTHER) ? "ok" : "COLLECTION_NOT_FOUND"),
        "COLLECTION_NOT_FOUND",
      ],
      ["a secret, of no collection", UNKNOWN, HEALTH_SECRET, always("COLLECTION_NOT_FOUND"), "COLLECTION_NOT_FOUND"],
    ] as const
  ).map(
    ([title, name, secret, expected, anonymous]): Case => ({
      rpc: "strongroom.v1.CollectionService/GetCollectionHealth",
      title: `with ${title}`,
      sparse: title !== "a wrong secret",
      expected,
      anonymous,
      call: ({ live }, { userName }, { headers }) =>
        done(
          live.clients.collections.getCollectionHealth(
            { collection: nameFor(userName, name) },
            { headers: { ...headers, "strongroom-health-secret": secret } },
          ),
        ),
    }),
  ),
  {
    rpc: "strongroom.v1.SessionService/Login",
    title: "whoever calls",
    sparse: true,
    expected: always("ok"),
    anonymous: "ok",
    ignoresSession: true,
    call: ({ live }, _caller, options) =>
      done(live.clients.sessions.login({ username: "stranger", password: "stranger-password" }, options)),
  },
  {
    rpc: "strongroom.v1.SessionService/RefreshSession",
    title: "keeps access key and scope",
    expected: ({ key, who, userName }) => `ok ${key} ${JSON.stringify(grants(userName, who.scope))}`,
    call: async ({ live }, _caller, options) => {
      const { session } = await live.clients.sessions.refreshSession({}, options);
      const scope = session!.scope.map(({ type, name, roles }) => ({
        type: ObjectType[type].toLowerCase(),
        name,
        // As configuration files write them: backupUploader.
        roles: roles.map((role) =>
          RoleMessage[role].toLowerCase().replace(/_(.)/g, (_, letter) => letter.toUpperCase()),
        ),
      }));
      return `ok ${session!.accessKey} ${JSON.stringify(scope)}`;
    },
  },
  {
    rpc: "strongroom.v1.SessionService/WhoAmI",
    title: "oneself",
    expected: ({ userName, key }) => `ok ${userName} ${key}`,
    call: async ({ live }, _caller, options) => {
      const { session } = await live.clients.sessions.whoAmI({}, options);
      return `ok ${session!.user} ${session!.accessKey}`;
    },
  },
  {
    rpc: "strongroom.v1.SessionService/ListSessions",
    title: "one's own",
    expected: ({ who, key }) => {
      const seen = [
        ...(handlesOwn(who, key === "") || isSystemAdmin(who) ? ["plain"] : []),
        ...(handlesOwn(who, true) || isSystemAdmin(who) ? ["own key"] : []),
        ...(handlesOwn(who, key === "full") || isSystemAdmin(who) ? ["key full"] : []),
      ];
      return `ok ${seen.join(" ")}`;
    },
    call: async ({ live }, { plain, ofOwnKey, ofKeyFull }, options) => {
      const ids = new Set<string>();
      let pageToken = "";
      do {
        const page = await live.clients.sessions.listSessions({ pageSize: 1000, pageToken }, options);
        for (const session of page.sessions) ids.add(session.sessionId);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      const probes: [string, Ended][] = [
        ["plain", plain],
        ["own key", ofOwnKey],
        ["key full", ofKeyFull],
      ];
      return `ok ${probes.flatMap(([name, { seen }]) => (ids.has(seen) ? [name] : [])).join(" ")}`;
    },
  },
  ...["stranger", "nobody"].map(
    (name): Case => ({
      rpc: "strongroom.v1.SessionService/ListSessions",
      title: `of ${name}`,
      sparse: name === "nobody",
      expected: ({ who }) => (isSystemAdmin(who) ? (name === "nobody" ? "USER_NOT_FOUND" : "ok") : "ACCESS_DENIED"),
      call: ({ live }, _caller, options) => done(live.clients.sessions.listSessions({ user: name }, options)),
    }),
  ),
  {
    rpc: "strongroom.v1.SessionService/ListSessions",
    title: "of all users",
    expected: ({ who }) => (isSystemAdmin(who) ? "ok" : "ACCESS_DENIED"),
    call: ({ live }, _caller, options) => done(live.clients.sessions.listSessions({ allUsers: true }, options)),
  },
  {
    rpc: "strongroom.v1.AdminService/ListAuditEvents",
    title: "of everybody",
    expected: ({ who }) => (isSystemAdmin(who) ? "ok" : "ACCESS_DENIED"),
    call: ({ live }, _caller, options) => done(live.clients.admin.listAuditEvents({}, options)),
  },
  {
    rpc: "strongroom.v1.SessionService/RevokeSession",
    title: "itself",
    expected: always("ok"),
    call: async ({ live }, { twin }, { headers }) => {
      // A caller without a valid session has no twin, and tries with what it has.
      const options = twin === undefined ? { headers } : bearer(twin.token);
      await live.clients.sessions.revokeSession({}, options);
      return await answerOf(done(live.clients.sessions.whoAmI({}, options))).then(({ answer }) =>
        answer === "SESSION_INVALID" ? "ok" : "still valid",
      );
    },
  },
  ...(
    [
      [
        "of one's own without an access key",
        (c: Caller) => c.plain.ended,
        (c: Caller) => handlesOwn(c.who, c.key === ""),
      ],
      ["of one's own access key", (c: Caller) => c.ofOwnKey.ended, (c: Caller) => handlesOwn(c.who, true)],
      [
        "of one's access key `full`",
        (c: Caller) => c.ofKeyFull.ended,
        (c: Caller) => handlesOwn(c.who, c.key === "full"),
      ],
    ] as const
  ).map(
    ([title, idOf, handles]): Case => ({
      rpc: "strongroom.v1.SessionService/RevokeSession",
      title,
      expected: (caller) => (handles(caller) || isSystemAdmin(caller.who) ? "ok" : "SESSION_NOT_FOUND"),
      call: ({ live }, caller, options) =>
        done(live.clients.sessions.revokeSession({ sessionId: idOf(caller) }, options)),
    }),
  ),
  {
    rpc: "strongroom.v1.SessionService/RevokeSession",
    title: "of another user",
    expected: ({ who }) => (isSystemAdmin(who) ? "ok" : "SESSION_NOT_FOUND"),
    call: ({ live, strangersSession }, _caller, options) =>
      done(live.clients.sessions.revokeSession({ sessionId: strangersSession }, options)),
  },
  ...["stranger", "nobody"].map(
    (name): Case => ({
      rpc: "strongroom.v1.SessionService/RevokeSessions",
      title: `of ${name}`,
      sparse: name === "nobody",
      expected: ({ who }) => (isSystemAdmin(who) ? (name === "nobody" ? "USER_NOT_FOUND" : "ok") : "ACCESS_DENIED"),
      call: ({ live }, _caller, options) => done(live.clients.sessions.revokeSessions({ user: name }, options)),
    }),
  ),
  ...(["listOrganizations", "listUsage"] as const).map(
    (name): Case => ({
      rpc: `strongroom.v1.OrganizationService/${name === "listUsage" ? "ListUsage" : "ListOrganizations"}`,
      title: "whoever calls",
      sparse: true,
      expected: ({ who }) => (isSystemAdmin(who) ? "ok" : "ACCESS_DENIED"),
      call: ({ live }, _caller, options) => done(live.clients.organizations[name]({}, options)),
    }),
  ),
  ...(["closeOrganization", "openOrganization", "purgeOrganization"] as const).map(
    (name): Case => ({
      rpc: `strongroom.v1.OrganizationService/${name[0]!.toUpperCase()}${name.slice(1)}`,
      title: "of nobody",
      sparse: true,
      expected: ({ who }) => (isSystemAdmin(who) ? "ORGANIZATION_NOT_FOUND" : "ACCESS_DENIED"),
      call: ({ live }, _caller, options) =>
        done(live.clients.organizations[name]({ organization: "nobody", reason: "x" } as never, options)),
    }),
  ),
  {
    rpc: "strongroom.v1.SessionService/RotateSigningKey",
    title: "whoever calls",
    sparse: true,
    expected: ({ who }) => (isSystemAdmin(who) ? "ok" : "ACCESS_DENIED"),
    call: ({ live }, _caller, options) => done(live.clients.sessions.rotateSigningKey({}, options)),
  },
  {
    rpc: "strongroom.v1.SessionService/RevokeSession",
    title: "that does not exist",
    expected: always("SESSION_NOT_FOUND"),
    sparse: true,
    call: ({ live }, _caller, options) => done(live.clients.sessions.revokeSession({ sessionId: NO_ID }, options)),
  },
  // The configuration of this server is none of files, so that what is allowed gets as far as that.
  {
    rpc: "strongroom.v1.AdminService/TestNotifier",
    title: "one that is not there",
    expected: administers("OBJECT_NOT_FOUND", false),
    call: ({ live }, _caller, options) => done(live.clients.admin.testNotifier({ name: "nobody" }, options)),
  },
  {
    rpc: "strongroom.v1.AdminService/CreateAccessKey",
    title: "of another user",
    expected: administers("CONFIGURATION_READ_ONLY"),
    call: ({ live }, _caller, options) =>
      done(
        live.clients.admin.createAccessKey(
          { user: "stranger", accessKey: "k", collections: [OTHER], roles: [RoleMessage.BACKUP_UPLOADER] },
          options,
        ),
      ),
  },
  {
    rpc: "strongroom.v1.AdminService/SetPassword",
    title: "of another user",
    expected: administers("CONFIGURATION_READ_ONLY"),
    call: ({ live }, _caller, options) => done(live.clients.admin.setPassword({ username: "stranger" }, options)),
  },
  {
    rpc: "strongroom.v1.AdminService/GetServerStatus",
    title: "of the server",
    expected: operates,
    call: ({ live }, _caller, options) => done(live.clients.admin.getServerStatus({}, options)),
  },
  {
    rpc: "strongroom.v1.AdminService/RunSweep",
    title: "of the server",
    expected: operates,
    call: ({ live }, _caller, options) => done(live.clients.admin.runSweep({}, options)),
  },
  {
    rpc: "strongroom.v1.AdminService/RunVerification",
    title: "of a collection that does not exist",
    expected: (caller) => (operates(caller) === "ok" ? "COLLECTION_NOT_FOUND" : operates(caller)),
    call: ({ live }, _caller, options) => done(live.clients.admin.runVerification({ collection: UNKNOWN }, options)),
  },
  ...["BackupUser", "BackupCollection", "Secret"].flatMap((kind): Case[] => [
    {
      rpc: "strongroom.v1.AdminService/GetObject",
      title: `a ${kind}`,
      expected: administers("CONFIGURATION_READ_ONLY"),
      call: ({ live }, _caller, options) => done(live.clients.admin.getObject({ kind, name: "stranger" }, options)),
    },
    {
      rpc: "strongroom.v1.AdminService/ListObjects",
      title: `of kind ${kind}`,
      expected: administers("CONFIGURATION_READ_ONLY"),
      call: ({ live }, _caller, options) => done(live.clients.admin.listObjects({ kind }, options)),
    },
    {
      rpc: "strongroom.v1.AdminService/DeleteObject",
      title: `a ${kind}`,
      expected: administers("CONFIGURATION_READ_ONLY", kind === "BackupUser"),
      call: ({ live }, _caller, options) => done(live.clients.admin.deleteObject({ kind, name: "stranger" }, options)),
    },
    {
      // Who may write objects of this kind is found out when they are read: change-objects.test.ts.
      rpc: "strongroom.v1.AdminService/ApplyObjects",
      title: `a ${kind}`,
      expected: administers("CONFIGURATION_READ_ONLY"),
      call: ({ live }, _caller, options) =>
        done(live.clients.admin.applyObjects({ documents: `kind: ${kind}\n` }, options)),
    },
  ]),
  ...(["check", "list"] as const).map(
    (name): Case => ({
      rpc: `grpc.health.v1.Health/${name === "check" ? "Check" : "List"}`,
      title: "whoever calls",
      sparse: true,
      expected: always("ok"),
      anonymous: "ok",
      ignoresSession: true,
      call: ({ live }, _caller, options) => done(live.clients.health[name]({}, options)),
    }),
  ),
  ...(["reflectionV1", "reflectionV1Alpha"] as const).map(
    (name): Case => ({
      rpc: `grpc.reflection.${name === "reflectionV1" ? "v1" : "v1alpha"}.ServerReflection/ServerReflectionInfo`,
      title: "whoever calls",
      sparse: true,
      expected: always("ok"),
      anonymous: "ok",
      ignoresSession: true,
      call: async ({ live }, _caller, options) => {
        async function* listServices() {
          yield { messageRequest: { case: "listServices" as const, value: "" } };
        }
        for await (const { messageResponse } of live.clients[name].serverReflectionInfo(listServices(), options)) {
          return messageResponse.case === "listServicesResponse" ? "ok" : `${messageResponse.case}`;
        }
        return "no answer";
      },
    }),
  ),
  {
    rpc: "grpc.health.v1.Health/Watch",
    title: "whoever calls",
    sparse: true,
    expected: always("ok"),
    anonymous: "ok",
    ignoresSession: true,
    call: async ({ live }, _caller, options) => {
      const enough = new AbortController();
      const watch = live.clients.health.watch({}, { ...options, signal: enough.signal });
      const first = await watch[Symbol.asyncIterator]().next();
      enough.abort();
      return first.done === true ? "no answer" : "ok";
    },
  },
];

// --- How it is tried.

interface Answer {
  readonly answer: string;
  /** The whole refusal, without names; empty for a success. */
  readonly refusals: string;
}

async function answerOf(call: Promise<string>): Promise<Answer> {
  try {
    return { answer: await call, refusals: "" };
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    const [info] = error.findDetails(ErrorInfoSchema);
    const names = /\b(vault-of-[\w-]+|shut-of-[\w-]+|other|unknown)\b|[0-9a-f]{8}-[0-9a-f-]{27}/g;
    const refusals = JSON.stringify([error.code, error.rawMessage, info?.metadata]).replace(names, "#");
    return { answer: info?.reason ?? `${error.message}`, refusals };
  }
}

const expectedOf = (one: Case, caller: Caller): string => {
  if (one.ignoresSession === true) return one.expected(caller);
  if (caller.token === undefined) return one.anonymous ?? "AUTHENTICATION_REQUIRED";
  return caller.refusedWith ?? one.expected(caller);
};

const NOBODY: Subject = { system: [], lists: {}, key: undefined, scope: undefined };

async function populate(live: LiveServer): Promise<{ world: World; callers: Caller[] }> {
  const strangers = await owned(live, "stranger", "");
  const world = { live, strangers, strangersSession: (await live.session("stranger")).id };
  const callers: Caller[] = [];
  const add = async (standing: Standing, key: string, scope: string, shared: Shared) => {
    const lists = { [VAULT]: standing.list ?? [], [SHUT]: standing.list ?? [] };
    const who = { system: standing.system ?? [], lists, key: keys[key], scope: scopes[scope] };
    const narrowing = { accessKey: key, scope: grants(standing.name, scopes[scope]) };
    const { token } = await live.session(standing.name, narrowing);
    callers.push({
      title: `${standing.name}, key ${key || "none"}, scope ${scope}`,
      who,
      userName: standing.name,
      key,
      inFull: ["", "full"].includes(key) && ["none", "matching"].includes(scope),
      refusedWith: undefined,
      token,
      twin: await live.session(standing.name, narrowing),
      uploads: shared.uploads.get(key)!,
      ofOtherKey: shared.uploads.get(key === "" ? "full" : "")!,
      plain: shared.sessions.get("")!,
      ofOwnKey: shared.sessions.get(key)!,
      ofKeyFull: shared.sessions.get("full")!,
    });
  };
  for (const standing of everybody) {
    const shared = await share(live, standing.name);
    const odd = oddStandings.includes(standing);
    for (const key of Object.keys(keys)) {
      for (const scope of Object.keys(scopes)) {
        if (skipped(key, scope)) continue;
        if (odd && !(["", "full"].includes(key) && ["none", "matching"].includes(scope))) continue;
        await add(standing, key, scope, shared);
      }
    }
  }
  // Sessions that were valid once, of users who may everything otherwise, and none at all.
  const model = callers.find((c) => c.title === "systemAdmin-system, key none, scope none")!;
  const lapsed = async (title: string, userName: string, accessKey = "") => {
    const { token } = await live.session(userName, { accessKey });
    callers.push({ ...model, title, token, refusedWith: "SESSION_INVALID", twin: undefined });
    return token;
  };
  for (const { name } of standings) await lapsed(`${name}, key removed`, name, "gone");
  await lapsed("deactivated", "deactivated");
  await lapsed("from another address", "elsewhere");
  await lapsed("removed user", "removed");
  const revoked = await live.session("systemAdmin-system");
  await live.database.transaction(async (tx) => await tx.sessions.revoke({ chainId: revoked.id }, tx.now));
  callers.push({ ...model, title: "revoked", token: revoked.token, refusedWith: "SESSION_INVALID", twin: undefined });
  callers.push({ ...model, title: "garbage", token: "garbage", refusedWith: "SESSION_INVALID", twin: undefined });
  callers.push({ ...model, title: "no session", who: NOBODY, token: undefined, twin: undefined });
  return { world, callers };
}

interface Shared {
  readonly uploads: ReadonlyMap<string, Owned>;
  readonly sessions: ReadonlyMap<string, Ended>;
}

async function share(live: LiveServer, userName: string): Promise<Shared> {
  const uploads = new Map<string, Owned>();
  const sessions = new Map<string, Ended>();
  for (const accessKey of Object.keys(keys)) {
    uploads.set(accessKey, await owned(live, userName, accessKey));
    const made = async () => (await live.session(userName, { accessKey })).id;
    sessions.set(accessKey, { seen: await made(), ended: await made() });
  }
  return { uploads, sessions };
}

const AT_ONCE = 32;

test("every method has a case", (t) => {
  const methods = SERVICES.flatMap((s) => s.methods.map((m) => `${s.typeName}/${m.name}`));
  t.deepEqual([...new Set(cases.map((c) => c.rpc))].sort(), methods.sort());
});

test("the rule says something of everything", (t) => {
  // An oracle that always says the same would agree with a server that does.
  const manager: Subject = { ...NOBODY, lists: { [VAULT]: ["collectionManager"] } };
  t.true(may(manager, "manage", VAULT));
  t.false(may(manager, "manage", OTHER));
  t.false(may({ ...manager, key: {} }, "upload", VAULT));
  t.is(outcome({ ...NOBODY, system: ["backupUploader"] }, "upload outside windows", SHUT), "WINDOW_CLOSED");
});

test("every method x role x access key x scope is as the rule says, and what is refused changes nothing", async (t) => {
  // Thousands of calls; a machine with other work to do may take its time.
  t.timeout(600_000);
  const health = createHash("sha256").update(HEALTH_SECRET).digest("hex");
  const users = [
    ...everybody.map(userOf),
    user("stranger", { passwordHash: "hash of stranger-password" }),
    user("deactivated", { roles: ["systemAdmin"], deactivated: true }),
    user("elsewhere", { roles: ["systemAdmin"], restrictByIp: ["192.0.2.0/24", "::/0"] }),
  ];
  const collections = [...everybody, { name: "stranger" }].flatMap(({ name, list = [] }: Standing) => {
    const accessControl = [
      { userName: "owner", roles: ["collectionManager" as const] },
      { userName: name, roles: list },
    ];
    return [
      collection(nameFor(name, VAULT), { ...wide, accessControl, healthSecretSha256: health }),
      collection(nameFor(name, SHUT), { ...wide, accessControl, windows: shut }),
    ];
  });
  collections.push(collection(OTHER, wide));
  const live = await LiveServer.open(users, collections);
  t.teardown(async () => await live.close());
  const { world, callers } = await populate(live);
  const work = callers.flatMap((caller) =>
    cases
      .filter((one) => one.sparse !== true || caller.inFull)
      .map((one) => ({ caller, one, expected: expectedOf(one, caller) })),
  );
  const wrong: string[] = [];
  const refusals = new Map<string, Set<string>>();

  const run = async (some: typeof work) => {
    const queue = some.values();
    const worker = async () => {
      for (const { caller, one, expected } of queue) {
        const headers: Record<string, string> =
          caller.token === undefined ? {} : { authorization: `Bearer ${caller.token}` };
        const given = await answerOf(one.call(world, caller, { headers }));
        if (given.answer !== expected) {
          wrong.push(`${one.rpc} (${one.title}) by ${caller.title}: expected ${expected}, got ${given.answer}`);
        }
        if (given.refusals !== "") refusals.set(expected, (refusals.get(expected) ?? new Set()).add(given.refusals));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  };

  const isRefusal = ({ expected }: (typeof work)[number]) => !expected.startsWith("ok");
  const before = await live.everything();
  await run(work.filter(isRefusal));
  t.deepEqual(wrong.slice(0, 20), [], `${wrong.length} of the refusals are wrong`);
  t.is(await live.everything(), before, "what is refused changes nothing");
  await run(work.filter((w) => !isRefusal(w)));
  t.deepEqual(wrong.slice(0, 20), [], `${wrong.length} of the rest are wrong`);
  t.not(await live.everything(), before, "and the look at everything sees what does");

  // What one may not see and what is not there have the same answer, to the letter.
  for (const reason of ["COLLECTION_NOT_FOUND", "UPLOAD_NOT_FOUND", "SESSION_NOT_FOUND", "SESSION_INVALID"]) {
    t.is(refusals.get(reason)?.size, 1, `${reason}: ${[...(refusals.get(reason) ?? [])].join("\n")}`);
  }
  t.log(`${work.length} calls by ${callers.length} callers, ${work.filter(isRefusal).length} of them to be refused`);
});
