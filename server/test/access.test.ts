import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import test from "ava";
import { processBudgets } from "../src/calls/budgets.ts";
import { beginCall } from "../src/calls/call.ts";
import { Calls, type CallsDeps } from "../src/calls/calls.ts";
import { ROUTES } from "../src/calls/routes.ts";
import {
  type CollectionAction,
  hasSystemRole,
  mayDo,
  maySee,
  namedRights,
  type Principal,
} from "../src/domain/access.ts";
import { type CollectionSpec, type ObjectGrant, ROLES, type Role, type User } from "../src/domain/configuration.ts";
import { DomainError } from "../src/domain/errors.ts";
import { NO_LIMITS } from "../src/domain/rate-limit.ts";
import { SERVICES } from "../src/transport/router.ts";

const ACTIONS: readonly CollectionAction[] = ["upload", "upload-anytime", "download", "manage"];

/** The table of behaviour.md, section 7, column "may", for what is done to collections. */
const MAY: Readonly<Record<Role, readonly CollectionAction[]>> = {
  systemAdmin: ["upload", "upload-anytime", "download", "manage"],
  userManager: [],
  collectionManager: ["upload", "upload-anytime", "download", "manage"],
  backupUploader: ["upload"],
  backupDownloader: ["download"],
  uploadsAnytime: ["upload", "upload-anytime"],
};

/**
 * Column "where": systemAdmin and userManager are roles of the system only, and the configuration takes them nowhere
 * else.
 */
const OBJECT_ROLES = ["collectionManager", "backupUploader", "backupDownloader", "uploadsAnytime"] as const;

const grant = (name: string, ...roles: Role[]): ObjectGrant => ({ type: "collection", name, roles });

function user(more: Partial<User> = {}): User {
  return {
    name: "ann",
    email: "ann@example.org",
    organization: "",
    about: "",
    deactivated: false,
    passwordHash: undefined,
    restrictByIp: [],
    roles: [],
    accessKeys: [],
    ...more,
  };
}

function collection(accessControl: CollectionSpec["accessControl"]): CollectionSpec {
  return {
    name: "db",
    description: "",
    organization: "",
    filenameTemplate: "db-${version}",
    maxBackupsCount: 3,
    maxOneVersionSize: 1n,
    maxCollectionSize: 3n,
    maxParallelUploads: 1,
    windows: [],
    timezone: "UTC",
    rotation: { strategy: "fifo" },
    maxAgeMs: undefined,
    minRetentionMs: undefined,
    minVersionSize: 0n,
    minIntervalMs: undefined,
    maxVersionsPerWindow: undefined,
    maxUploadAgeMs: undefined,
    shrunkFactor: 4,
    rotationGuard: undefined,
    removalShare: 0.5,
    trashRetentionMs: undefined,
    encryptionFormats: ["openpgp"],
    recipientKeyIds: undefined,
    healthSecretSha256: undefined,
    accessControl,
  };
}

/** What the user itself has, before any narrowing. */
interface Standing {
  readonly title: string;
  readonly system: readonly Role[];
  readonly list: CollectionSpec["accessControl"];
  /** Roles that count for the collection. */
  readonly counts: readonly Role[];
}

const standings: readonly Standing[] = [
  { title: "no role", system: [], list: [], counts: [] },
  ...ROLES.map((role) => ({ title: `${role} in the system`, system: [role], list: [], counts: [role] })),
  ...OBJECT_ROLES.map((role) => ({
    title: `${role} in the access list`,
    system: [],
    list: [
      { userName: "bob", roles: ["collectionManager" as const] },
      { userName: "ann", roles: [role] },
    ],
    counts: [role],
  })),
  {
    title: "somebody else's entry",
    system: [],
    list: [{ userName: "Ann", roles: ["collectionManager"] }],
    counts: [],
  },
  {
    title: "one role in the system, another in the access list",
    system: ["backupDownloader"],
    list: [{ userName: "ann", roles: ["backupUploader"] }],
    counts: ["backupDownloader", "backupUploader"],
  },
  {
    title: "two entries in the access list",
    system: [],
    list: [
      { userName: "ann", roles: ["backupDownloader"] },
      { userName: "ann", roles: ["uploadsAnytime"] },
    ],
    counts: ["backupDownloader", "uploadsAnytime"],
  },
];

/** What narrows it, an access key or a scope; `counts` undefined means that it narrows nothing. */
interface Narrowing {
  readonly title: string;
  readonly grants: readonly ObjectGrant[] | undefined;
  readonly counts: readonly Role[] | undefined;
}

const narrowings: readonly Narrowing[] = [
  { title: "none", grants: undefined, counts: undefined },
  ...OBJECT_ROLES.map((role) => ({ title: role, grants: [grant("db", role)], counts: [role] })),
  { title: "another collection", grants: [grant("db2", "collectionManager")], counts: [] },
  { title: "a longer name", grants: [grant("db-old", "collectionManager")], counts: [] },
  { title: "no roles", grants: [grant("db")], counts: [] },
  { title: "another type", grants: [{ type: "user", name: "db", roles: ["collectionManager"] }], counts: [] },
  {
    title: "several, one of them for the collection",
    grants: [grant("db2", "collectionManager"), grant("db", "backupDownloader")],
    counts: ["backupDownloader"],
  },
  {
    title: "two for the collection",
    grants: [grant("db", "backupDownloader"), grant("db", "backupUploader")],
    counts: ["backupDownloader", "backupUploader"],
  },
];

const keys: readonly (Narrowing & { readonly unknown?: boolean })[] = [
  ...narrowings,
  { title: "no objects", grants: [], counts: [] },
  { title: "unknown", grants: undefined, counts: [], unknown: true },
];

function principalOf(standing: Standing, key: (typeof keys)[number], scope: Narrowing): Principal {
  const named = key.grants !== undefined || key.unknown === true;
  const accessKeys = [
    // Another key of the same user must not count.
    { name: "other", passwordHash: undefined, objects: [grant("db", "collectionManager")] },
    ...(key.grants === undefined ? [] : [{ name: "key", passwordHash: undefined, objects: key.grants }]),
  ];
  return {
    user: user({ roles: standing.system, accessKeys }),
    accessKey: named ? "key" : "",
    scope: scope.grants ?? [],
    sessionId: "s",
  };
}

for (const standing of standings) {
  test(`every combination of access key, scope and action: ${standing.title}`, (t) => {
    const spec = collection(standing.list);
    for (const key of keys) {
      for (const scope of narrowings) {
        const principal = principalOf(standing, key, scope);
        // The rule: the user's roles, and the key's when there is a key, and the scope's when there is a scope.
        const layers = [standing.counts, key.counts, scope.counts].filter((roles) => roles !== undefined);
        const may = (action: CollectionAction) => layers.every((roles) => roles.some((r) => MAY[r].includes(action)));
        const title = `key: ${key.title}; scope: ${scope.title}`;
        for (const action of ACTIONS) t.is(mayDo(principal, spec, action), may(action), `${title}; ${action}`);
        t.is(maySee(principal, spec), may("upload") || may("download"), `${title}; see`);
        const named = namedRights(principal, new Map([[spec.name, spec]]));
        const isNamed = (scope.grants ?? key.grants ?? []).some(
          ({ name, type }) => name === "db" && type === "collection",
        );
        t.deepEqual(
          named.find(({ collection }) => collection === "db")?.actions,
          isNamed ? ACTIONS.filter(may) : undefined,
          `${title}; named`,
        );
        for (const { collection, actions } of named) if (collection !== "db") t.deepEqual(actions, []);
      }
    }
  });
}

test("combinations worth a line of their own", (t) => {
  const plain = { accessKey: "", scope: [], sessionId: "s" };
  const inList = collection([{ userName: "ann", roles: ["backupUploader"] }]);
  const admin = user({ roles: ["systemAdmin"] });
  t.true(mayDo({ ...plain, user: user() }, inList, "upload"));
  t.false(mayDo({ ...plain, user: user() }, inList, "upload-anytime"));
  t.false(mayDo({ ...plain, user: user() }, inList, "download"));
  t.true(
    mayDo({ ...plain, user: user({ roles: ["collectionManager"] }) }, inList, "upload"),
    "a fault of the ancestor",
  );
  t.false(
    mayDo({ ...plain, user: admin, accessKey: "gone" }, inList, "upload"),
    "a key that was removed allows nothing",
  );
  t.false(
    mayDo({ ...plain, user: user(), scope: [grant("db", "collectionManager")] }, inList, "manage"),
    "a scope does not add to the user's roles",
  );
  const widerKey = { name: "key", passwordHash: undefined, objects: [grant("db", "collectionManager")] };
  t.false(
    mayDo({ ...plain, user: user({ accessKeys: [widerKey] }), accessKey: "key" }, inList, "manage"),
    "an access key does not add to the user's roles",
  );
  t.false(mayDo({ ...plain, user: user({ deactivated: true }) }, collection([]), "upload"));
});

const systemCases: [title: string, roles: Role[], accessKey: string, scope: ObjectGrant[], has: Role[]][] = [
  ["none", [], "", [], []],
  ["systemAdmin has every role", ["systemAdmin"], "", [], [...ROLES]],
  ["userManager", ["userManager"], "", [], ["userManager"]],
  ["two", ["userManager", "backupUploader"], "", [], ["userManager", "backupUploader"]],
  ["systemAdmin with an access key", ["systemAdmin"], "key", [], []],
  ["systemAdmin with a scope", ["systemAdmin"], "", [grant("db", "systemAdmin")], []],
  ["userManager with an access key", ["userManager"], "key", [], []],
  ["userManager with a scope", ["userManager"], "", [grant("db", "userManager")], []],
];

for (const [title, roles, accessKey, scope, has] of systemCases) {
  test(`hasSystemRole: ${title}`, (t) => {
    const accessKeys = [{ name: "key", passwordHash: undefined, objects: [grant("db", "systemAdmin")] }];
    const principal = { user: user({ roles, accessKeys }), accessKey, scope, sessionId: "s" };
    t.deepEqual(
      ROLES.filter((role) => hasSystemRole(principal, role)),
      ROLES.filter((role) => has.includes(role)),
    );
  });
}

const METHODS = SERVICES.flatMap((service) => service.methods.map((method) => `${service.typeName}/${method.name}`));

test("every served method has an entry in the route table, and no entry is without a method", (t) => {
  t.deepEqual(Object.keys(ROUTES).sort(), [...METHODS].sort());
  t.is(new Set(METHODS).size, METHODS.length);
  t.true(METHODS.length > 20);
});

test("only login, health and reflection are open to everybody, and only one method takes a health secret", (t) => {
  const having = (requirement: string) => METHODS.filter((method) => ROUTES[method]?.who === requirement);
  t.deepEqual(
    having("anonymous").filter((method) => !/^grpc\.(health|reflection)\./.test(method)),
    ["strongroom.v1.SessionService/Login"],
  );
  t.deepEqual(having("session or secret"), ["strongroom.v1.CollectionService/GetCollectionHealth"]);
});

/** Asks for a call to be let in. @returns whether it was, or the reason it was not. */
async function pass(method: string, headers: Record<string, string>, onLookup: () => void = () => {}): Promise<string> {
  const calls = new Calls({
    database: {
      read: async () => {
        onLookup();
        return { session: undefined, now: new Date(0) };
      },
    },
    config: { current: () => ({ users: new Map(), collections: new Map(), organizations: new Map() }) },
    tokens: { verify: async () => true },
    sha256: (text: string) => text,
    budgets: processBudgets(NO_LIMITS),
    logins: { take: async () => {} },
  } as unknown as CallsDeps);
  const call = beginCall({ door: "connect", method, address: "192.0.2.1", requestId: undefined });
  try {
    await calls.admit(call, { header: (name) => headers[name], query: "", bodyBytes: 0 });
    return "through";
  } catch (error) {
    if (error instanceof DomainError) return error.reason;
    throw error;
  }
}

const HEALTH = "strongroom.v1.CollectionService/GetCollectionHealth";
const LIST = "strongroom.v1.CollectionService/ListCollections";

const calls: [title: string, method: string, headers: Record<string, string>, outcome: string][] = [
  ["an unknown method is refused", "strongroom.v1.AdminService/DropEverything", {}, "ACCESS_DENIED"],
  [
    "an unknown method is refused with a token",
    "strongroom.v1.AdminService/X",
    { authorization: "Bearer t" },
    "ACCESS_DENIED",
  ],
  ["names that every object has are no entries", "toString", {}, "ACCESS_DENIED"],
  ["login needs nothing", "strongroom.v1.SessionService/Login", {}, "through"],
  ["login does not look at a token", "strongroom.v1.SessionService/Login", { authorization: "Bearer t" }, "through"],
  ["the standard health service needs nothing", "grpc.health.v1.Health/Check", {}, "through"],
  ["a session is needed", LIST, {}, "AUTHENTICATION_REQUIRED"],
  ["a token that is not known", LIST, { authorization: "Bearer t" }, "SESSION_INVALID"],
  ["the scheme in any case", LIST, { authorization: "bearer t" }, "SESSION_INVALID"],
  ["another scheme", LIST, { authorization: "Basic dDp0" }, "AUTHENTICATION_REQUIRED"],
  ["no token after the scheme", LIST, { authorization: "Bearer " }, "AUTHENTICATION_REQUIRED"],
  ["two tokens", LIST, { authorization: "Bearer t t" }, "AUTHENTICATION_REQUIRED"],
  ["a token of 5 KB", LIST, { authorization: `Bearer ${"t".repeat(5000)}` }, "AUTHENTICATION_REQUIRED"],
  ["a health secret is no session", LIST, { [HEALTH_SECRET_HEADER]: "s" }, "AUTHENTICATION_REQUIRED"],
  ["health with a secret is for its use case to decide", HEALTH, { [HEALTH_SECRET_HEADER]: "s" }, "through"],
  ["health with neither", HEALTH, {}, "AUTHENTICATION_REQUIRED"],
  [
    "health with a wrong token and a secret",
    HEALTH,
    { authorization: "Bearer t", [HEALTH_SECRET_HEADER]: "s" },
    "SESSION_INVALID",
  ],
];

for (const [title, method, headers, outcome] of calls) {
  test(`authentication: ${title}`, async (t) => t.is(await pass(method, headers), outcome));
}

test("authentication: every method that needs a session refuses a call without one, asking no database", async (t) => {
  for (const method of METHODS.filter((m) => ROUTES[m]!.who !== "anonymous")) {
    t.is(await pass(method, {}, () => t.fail("asked")), "AUTHENTICATION_REQUIRED", method);
  }
});
