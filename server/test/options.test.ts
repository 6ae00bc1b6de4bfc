import { resolve } from "node:path";
import test from "ava";
import fc from "fast-check";
import {
  environmentName,
  OPTION_DECLARATIONS,
  type OptionDeclaration,
  parseOptions,
  serveHelp,
  UsageError,
} from "../src/commands/options.ts";
import type { ServerOptions } from "../src/server-options.ts";

type Env = Record<string, string | undefined>;

const DECLARATIONS: readonly OptionDeclaration[] = OPTION_DECLARATIONS;

function parse(args: readonly string[], env: Env = {}): ServerOptions {
  const options = parseOptions(args, env);
  if (options === "help") throw new Error("help was not asked for");
  return options;
}

/** The directory of the embedded database; undefined for memory. */
function pgliteDir({ database }: ServerOptions): string | undefined {
  if (database.kind !== "pglite") throw new Error("another kind of database");
  return database.directory;
}

function postgresOf({ database }: ServerOptions) {
  if (database.kind !== "postgres") throw new Error("another kind of database");
  return database;
}

test("the defaults", (t) => {
  const data = resolve("strongroom-data");
  t.deepEqual(parse([]), {
    configDir: `${data}/config`,
    configPollMs: 5000,
    monitoringSecretSha256: undefined,
    monitoringSecretFile: undefined,
    database: { kind: "pglite", directory: `${data}/database` },
    storage: { kind: "directory", path: `${data}/storage` },
    host: "127.0.0.1",
    port: 8080,
    tls: undefined,
    trustedProxies: [],
    maxConnections: undefined,
    maxConnectionsPerAddress: undefined,
    sessionMs: 6 * 3_600_000,
    tokenSecretFile: undefined,
    segmentSize: 16n * 1024n * 1024n,
    sweepMs: 60_000,
    verification: { everyMs: 30 * 24 * 3_600_000, bytesPerSecond: 32n * 1024n * 1024n },
    shutdownGraceMs: 30_000,
    rateLimits: {
      login: { count: 20, perMs: 120_000 },
      health: { count: 600, perMs: 60_000 },
      requests: { count: 6000, perMs: 10_000 },
    },
    logLevel: "info",
  });
});

test("the options cannot be changed", (t) => {
  t.true(Object.isFrozen(parse([])));
});

test("--data moves the embedded defaults, and only those that were not given", (t) => {
  const moved = parse(["--data", "/srv/strong room#1"]);
  t.is(moved.configDir, "/srv/strong room#1/config");
  t.is(pgliteDir(moved), "/srv/strong room#1/database");
  t.deepEqual(moved.storage, { kind: "directory", path: "/srv/strong room#1/storage" });
  const mixed = parse(["--data", "/srv", "--config", "/etc/strongroom", "--storage", "mem://"]);
  t.is(mixed.configDir, "/etc/strongroom");
  t.is(pgliteDir(mixed), "/srv/database");
  t.deepEqual(mixed.storage, { kind: "memory", discard: false });
});

test("relative directories are those of the working directory", (t) => {
  t.is(parse(["--data", "here"]).configDir, resolve("here/config"));
  t.is(pgliteDir(parse(["--database", "pglite:here"])), resolve("here"));
  t.deepEqual(parse(["--storage", "file:./here"]).storage, { kind: "directory", path: resolve("here") });
});

/** Two values of every option other than its default, and what they become. */
const VALUES: Readonly<
  Record<
    string,
    {
      readonly read: (o: ServerOptions) => unknown;
      readonly values: readonly [[string, unknown], [string, unknown]];
      /** Other options without which it means nothing. */
      readonly beside?: readonly string[];
    }
  >
> = {
  data: {
    read: pgliteDir,
    values: [
      ["/a", "/a/database"],
      ["/b", "/b/database"],
    ],
  },
  config: {
    read: (o) => o.configDir,
    values: [
      ["/a", "/a"],
      ["/b", "/b"],
    ],
  },
  "config-poll": {
    read: (o) => o.configPollMs,
    values: [
      ["1s", 1000],
      ["1m", 60_000],
    ],
  },
  "monitoring-secret-sha256": {
    read: (o) => o.monitoringSecretSha256,
    values: [
      ["ab".repeat(32), "ab".repeat(32)],
      ["CD".repeat(32), "cd".repeat(32)],
    ],
  },
  "monitoring-secret-file": {
    read: (o) => o.monitoringSecretFile,
    values: [
      ["/a", "/a"],
      ["/b", "/b"],
    ],
  },
  database: {
    read: pgliteDir,
    values: [
      ["pglite:/a", "/a"],
      ["pglite:memory", undefined],
    ],
  },
  "database-password-file": {
    read: (o) => postgresOf(o).passwords.passwordFile,
    beside: ["--database", "postgres://localhost/x"],
    values: [
      ["/a", "/a"],
      ["/b", "/b"],
    ],
  },
  "database-connections": {
    read: (o) => postgresOf(o).connections,
    beside: ["--database", "postgres://localhost/x"],
    values: [
      ["1", 1],
      ["1000", 1000],
    ],
  },
  storage: {
    read: (o) => o.storage,
    values: [
      ["mem://", { kind: "memory", discard: false }],
      ["file:///a", { kind: "directory", path: "/a" }],
    ],
  },
  listen: {
    read: (o) => [o.host, o.port],
    values: [
      ["localhost:1", ["localhost", 1]],
      ["[::1]:2", ["::1", 2]],
    ],
  },
  "trusted-proxies": {
    read: (o) => o.trustedProxies,
    values: [
      ["10.0.0.1", ["10.0.0.1"]],
      [" 10.0.0.0/8, ::1 ,2001:db8::/32,", ["10.0.0.0/8", "::1", "2001:db8::/32"]],
    ],
  },
  "max-connections": {
    read: (o) => o.maxConnections,
    values: [
      ["300", 300],
      ["1", 1],
    ],
  },
  "max-connections-per-address": {
    read: (o) => o.maxConnectionsPerAddress,
    values: [
      ["30", 30],
      ["1", 1],
    ],
  },
  "session-duration": {
    read: (o) => o.sessionMs,
    values: [
      ["1h30m", 5_400_000],
      ["2d", 172_800_000],
    ],
  },
  "token-secret-file": {
    read: (o) => o.tokenSecretFile,
    values: [
      ["/a", "/a"],
      ["/b", "/b"],
    ],
  },
  "segment-size": {
    read: (o) => o.segmentSize,
    values: [
      ["1M", 1_048_576n],
      ["1G", 1_073_741_824n],
    ],
  },
  "verify-every": {
    read: (o) => o.verification?.everyMs,
    values: [
      ["7d", 7 * 24 * 3_600_000],
      ["off", undefined],
    ],
  },
  "verify-rate": {
    read: (o) => o.verification?.bytesPerSecond,
    values: [
      ["1M", 1024n * 1024n],
      ["4K", 4096n],
    ],
  },
  "sweep-interval": {
    read: (o) => o.sweepMs,
    values: [
      ["10s", 10_000],
      ["5m", 300_000],
    ],
  },
  "rate-limit-login": {
    read: (o) => o.rateLimits.login,
    values: [
      ["5/1m", { count: 5, perMs: 60_000 }],
      ["off", undefined],
    ],
  },
  "rate-limit-health": {
    read: (o) => o.rateLimits.health,
    values: [
      ["5/1m", { count: 5, perMs: 60_000 }],
      ["off", undefined],
    ],
  },
  "rate-limit-requests": {
    read: (o) => o.rateLimits.requests,
    values: [
      ["5/1m", { count: 5, perMs: 60_000 }],
      ["off", undefined],
    ],
  },
  "shutdown-grace": {
    read: (o) => o.shutdownGraceMs,
    values: [
      ["0", 0],
      ["5s", 5000],
    ],
  },
  "log-level": {
    read: (o) => o.logLevel,
    values: [
      ["trace", "trace"],
      ["silent", "silent"],
    ],
  },
};

for (const { name, value } of DECLARATIONS) {
  // Those of TLS go together; see below.
  if (value === undefined || name.startsWith("tls-")) continue;
  test(`--${name}: the flag wins over the environment, that over the default`, (t) => {
    const variable = environmentName(name);
    const given = VALUES[name];
    if (given === undefined) return t.fail(`no values to test --${name} with`);
    const { read, values, beside = [] } = given;
    const parsed = (args: readonly string[], env: Readonly<Record<string, string | undefined>> = {}) =>
      read(parse([...beside, ...args], env));
    const [[one, oneRead], [two, twoRead]] = values;
    const usual = parsed([]);
    t.notDeepEqual(oneRead, usual);
    t.notDeepEqual(twoRead, usual);
    t.deepEqual(parsed([], { [variable]: one }), oneRead);
    t.deepEqual(parsed([`--${name}`, two], { [variable]: one }), twoRead);
    t.deepEqual(parsed([`--${name}=${one}`], { [variable]: two }), oneRead);
    t.deepEqual(parsed([], { [variable]: "" }), usual, "empty is not given");
    t.deepEqual(parsed([], { [variable]: undefined }), usual);
    t.deepEqual(parsed([], { [name]: one, [variable.toLowerCase()]: one }), usual, "other variables do not count");
  });
}

test("TLS takes a certificate and its key, and is as good as --allow-plaintext beyond loopback", (t) => {
  const files = { cert: "/c.pem", key: "/k.pem", clientCa: undefined };
  t.deepEqual(parse(["--tls-cert", "/c.pem", "--tls-key", "/k.pem"]).tls, files);
  t.deepEqual(parse([], { STRONGROOM_TLS_CERT: "/c.pem", STRONGROOM_TLS_KEY: "/k.pem" }).tls, files);
  const all = ["--tls-cert", "c.pem", "--tls-key=k.pem", "--tls-client-ca", "ca.pem", "--listen", "0.0.0.0:8443"];
  t.deepEqual(parse(all, { STRONGROOM_TLS_CERT: "/other" }).tls, {
    cert: resolve("c.pem"),
    key: resolve("k.pem"),
    clientCa: resolve("ca.pem"),
  });
  const refused = (args: string[]) => t.throws(() => parse(args), { instanceOf: UsageError })!.message;
  t.regex(refused(["--tls-cert", "c"]), /^--tls-cert needs --tls-key \(STRONGROOM_TLS_KEY\)/);
  t.regex(refused(["--tls-key", "k"]), /^--tls-key needs --tls-cert \(STRONGROOM_TLS_CERT\)/);
  t.regex(refused(["--tls-client-ca", "k"]), /^--tls-client-ca needs --tls-cert/);
  t.regex(refused(["--tls-client-ca", "k", "--tls-cert", "c"]), /^--tls-cert needs --tls-key/);
});

test("names of environment variables", (t) => {
  t.is(environmentName("listen"), "STRONGROOM_LISTEN");
  t.is(environmentName("token-secret-file"), "STRONGROOM_TOKEN_SECRET_FILE");
});

const bad: [option: string, value: string][] = [
  ["database", "postgres"],
  ["database", "pglite"],
  ["database", "pglite:"],
  ["database", "sqlite:/a"],
  ["storage", "/backup"],
  ["storage", "file:"],
  ["storage", "file:backup"],
  ["storage", "file:///a%"],
  ["storage", "mem:"],
  ["storage", "mem://other"],
  ["listen", "8080"],
  ["listen", ":8080"],
  ["listen", "127.0.0.1"],
  ["listen", "127.0.0.1:"],
  ["listen", "127.0.0.1:65536"],
  ["listen", "127.0.0.1:-1"],
  ["listen", "127.0.0.1:http"],
  ["listen", "::1:8080"],
  ["listen", "[::1]"],
  ["listen", "[::1:8080"],
  ["listen", "http://localhost:8080"],
  ["session-duration", "6"],
  ["session-duration", "forever"],
  ["session-duration", "-1h"],
  ["sweep-interval", "often"],
  ["rate-limit-login", "20"],
  ["rate-limit-health", "0/1m"],
  ["rate-limit-requests", "20/ever"],
  ["shutdown-grace", "1 minute"],
  ["segment-size", "0"],
  ["segment-size", "512K"],
  ["segment-size", "1.5M"],
  ["segment-size", "1025M"],
  ["segment-size", "2G"],
  ["segment-size", "big"],
  ["trusted-proxies", "proxy.example.org"],
  ["trusted-proxies", "10.0.0.1 10.0.0.2"],
  ["trusted-proxies", "10.0.0.0/33"],
  ["trusted-proxies", "fe80::1%eth0"],
  ["max-connections", "0"],
  ["max-connections", "off"],
  ["max-connections-per-address", "-1"],
  ["log-level", "verbose"],
  ["log-level", "INFO"],
];

for (const [option, value] of bad) {
  test(`--${option} ${value} is refused, and the message says flag and variable`, (t) => {
    for (const [args, env] of [
      [[`--${option}=${value}`], {}],
      [[], { [environmentName(option)]: value }],
    ] as const) {
      const error = t.throws(() => parseOptions(args, env), { instanceOf: UsageError });
      t.true(error!.message.includes(`--${option}`), error!.message);
      t.true(error!.message.includes(environmentName(option)), error!.message);
      t.true(error!.message.length < 300);
    }
  });
}

test("unknown flags, arguments and missing values are refused with a pointer to the help", (t) => {
  for (const args of [
    ["--databse", "x"],
    ["now"],
    ["--listen"],
    ["--allow-plaintext=yes"],
    ["-x"],
    ["--listen", "--data"],
  ]) {
    const error = t.throws(() => parseOptions(args, {}), { instanceOf: UsageError });
    t.regex(error!.message, /strongroom serve --help/);
  }
});

test("a password inside a URL is never shown", (t) => {
  const password = "hunter2";
  const urls = [
    `postgres://user:${password}@db.example.org/strongroom`,
    `postgresql://user:${password}@[::1]:5432/x?sslmode=prefer`,
    `s3://key:${password}@bucket/prefix`,
    `S3://${password}@bucket`,
    `pglite//${password}`,
    password,
    ` s3://key:${password}@bucket`,
  ];
  for (const option of ["database", "storage"]) {
    for (const url of urls) {
      for (const [args, env] of [
        [[`--${option}`, url], {}],
        [[], { [environmentName(option)]: url }],
      ] as const) {
        const error = t.throws(() => parseOptions(args, env), { instanceOf: UsageError });
        t.false(error!.message.includes(password), error!.message);
      }
    }
  }
  t.regex(t.throws(() => parse(["--storage", urls[0]!]))!.message, /got "postgres:\.\.\."/, "the scheme is");
});

const listens: [value: string, host: string, port: number][] = [
  ["127.0.0.1:8080", "127.0.0.1", 8080],
  ["127.1.2.3:1", "127.1.2.3", 1],
  ["localhost:65535", "localhost", 65_535],
  ["[::1]:8080", "::1", 8080],
  ["127.0.0.1:0", "127.0.0.1", 0],
];

for (const [value, host, port] of listens) {
  test(`--listen ${value} is loopback and needs no TLS`, (t) => {
    const options = parse(["--listen", value]);
    t.is(options.host, host);
    t.is(options.port, port);
  });
}

const beyond: [value: string, host: string][] = [
  ["0.0.0.0:8080", "0.0.0.0"],
  ["192.0.2.7:8080", "192.0.2.7"],
  ["[::]:8080", "::"],
  ["[2001:db8::7]:8080", "2001:db8::7"],
  ["backup.example.org:8080", "backup.example.org"],
  ["localhost.example.org:8080", "localhost.example.org"],
  ["127.0.0.1.example.org:8080", "127.0.0.1.example.org"],
  ["1127.0.0.1:8080", "1127.0.0.1"],
];

for (const [value, host] of beyond) {
  test(`--listen ${value} is refused without TLS until it is allowed`, (t) => {
    const error = t.throws(() => parseOptions(["--listen", value], {}), { instanceOf: UsageError });
    t.regex(error!.message, /--listen .*TLS.*--allow-plaintext/);
    t.throws(() => parseOptions([], { STRONGROOM_LISTEN: value }), { instanceOf: UsageError });
    t.is(parse(["--listen", value, "--allow-plaintext"]).host, host);
    for (const yes of ["1", "true", "yes", "on", "TRUE"]) {
      t.is(parse(["--listen", value], { STRONGROOM_ALLOW_PLAINTEXT: yes }).host, host);
    }
    for (const no of ["", "0", "false", "no", "off", "perhaps"]) {
      t.throws(() => parse(["--listen", value], { STRONGROOM_ALLOW_PLAINTEXT: no }), { instanceOf: UsageError });
    }
  });
}

const places: [option: "database" | "storage", value: string, place: unknown][] = [
  ["database", "pglite:memory", undefined],
  ["database", "pglite:/var/lib/x", "/var/lib/x"],
  ["database", "pglite:///var/lib/x", "/var/lib/x"],
  ["database", "pglite:./memory", resolve("memory")],
  ["storage", "mem://", { kind: "memory", discard: false }],
  ["storage", "mem://discard", { kind: "memory", discard: true }],
  ["storage", "file:/var/lib/x", { kind: "directory", path: "/var/lib/x" }],
  ["storage", "file:///var/lib/x", { kind: "directory", path: "/var/lib/x" }],
  ["storage", "file:///var/my%20lib/x%231", { kind: "directory", path: "/var/my lib/x#1" }],
  ["storage", "file:../x", { kind: "directory", path: resolve("../x") }],
];

for (const [option, value, place] of places) {
  test(`--${option} ${value}`, (t) => {
    const options = parse([`--${option}`, value]);
    t.deepEqual(option === "database" ? pgliteDir(options) : options.storage, place);
  });
}

test("a PostgreSQL server, and where its password may come from", (t) => {
  const url = "postgres://u@db.example.org/strongroom?sslmode=verify-full";
  const secret = "postgres://u:hunter2@db.example.org/strongroom?sslmode=verify-full";
  const password = (args: string[], env: Record<string, string> = {}) => postgresOf(parse(args, env)).location.password;
  t.is(password(["--database", url]), undefined);
  t.is(password([], { STRONGROOM_DATABASE: secret }), "hunter2");
  t.is(password(["--database", url], { PGPASSWORD: "other" }), "other");
  t.is(password([], { STRONGROOM_DATABASE: secret, PGPASSWORD: "other" }), "hunter2");
  t.is(postgresOf(parse(["--database", url], { PGPASSFILE: "/p" })).passwords.passFile, "/p");
  for (const flag of [secret, `${url}&password=hunter2`, "postgresql:///x?host=/run&password=hunter2"]) {
    const error = t.throws(() => parse(["--database", flag]), { instanceOf: UsageError });
    t.regex(error!.message, /STRONGROOM_DATABASE.*--database-password-file/);
    t.false(error!.message.includes("hunter2"));
  }
  const twice = { STRONGROOM_DATABASE: secret, STRONGROOM_DATABASE_PASSWORD_FILE: "/p" };
  t.throws(() => parse([], twice), { instanceOf: UsageError, message: /leave one of them out/ });
  t.throws(() => parse(["--database-password-file", "/p"]), { instanceOf: UsageError, message: /no password/ });
  for (const connections of ["0", "1001", "x", "1.5", "-1"]) {
    const args = ["--database", url, `--database-connections=${connections}`];
    t.throws(() => parse(args), { instanceOf: UsageError, message: /from 1 to 1000/ });
  }
});

test("segment sizes are whole MiB from 1M to 1G", (t) => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 31n }), (bytes) => {
      const mib = 1_048_576n;
      for (const size of [bytes, (bytes / mib) * mib]) {
        const good = size >= mib && size <= 1024n * mib && size % mib === 0n;
        if (good) t.is(parse(["--segment-size", String(size)]).segmentSize, size);
        else t.throws(() => parse(["--segment-size", String(size)]), { instanceOf: UsageError });
      }
    }),
  );
});

test("help is asked for by --help and -h, also beside what is wrong elsewhere", (t) => {
  t.is(parseOptions(["--help"], {}), "help");
  t.is(parseOptions(["-h"], {}), "help");
  t.is(parseOptions(["--listen", "0.0.0.0:80", "-h"], { STRONGROOM_LOG_LEVEL: "verbose" }), "help");
});

test("the help lists every option with its variable and default", (t) => {
  const lines = serveHelp().split("\n");
  for (const { name, value, fallback, help } of DECLARATIONS) {
    const flag = `--${name}${value === undefined ? "" : ` ${value}`}`;
    const row = lines.filter((line) => line.startsWith(`  ${flag} `));
    t.is(row.length, 1, name);
    t.true(row[0]!.includes(help));
    t.true(row[0]!.includes(`[${environmentName(name)}]`));
    t.is(row[0]!.includes("(default "), fallback !== undefined);
    if (fallback !== undefined) t.true(row[0]!.includes(`(default ${fallback})`));
  }
  t.true(lines.some((line) => line.startsWith("  -h, --help ")));
});

test("the defaults that the help shows are those that apply", (t) => {
  const data = "./strongroom-data";
  for (const { name, value, fallback } of DECLARATIONS) {
    if (value === undefined || fallback === undefined) continue;
    const shown = fallback.replace("<data>", resolve(data));
    t.deepEqual(parse([`--${name}`, shown]), parse([]), name);
  }
});

test("the examples of the help are good", (t) => {
  const examples = [...serveHelp().matchAll(/strongroom serve((?: --\S+ \S+)*)$/gm)].map((match) => match[1]!.trim());
  t.is(examples.length, 6);
  for (const example of examples) {
    t.notThrows(() => parse(example === "" ? [] : example.replaceAll('"', "").split(" ")));
  }
});

test("values that would break the server are refused", (t) => {
  const refused = (args: string[], env: Record<string, string> = {}) =>
    t.throws(() => parseOptions(args, env), { instanceOf: UsageError })!.message;
  for (const [flag, value] of [
    ["--sweep-interval", "0s"],
    ["--sweep-interval", "30d"],
    ["--verify-every", "1m"],
    ["--verify-every", "never"],
    ["--verify-rate", "0"],
    ["--session-duration", "0s"],
    ["--session-duration", "500ms"],
    ["--storage", "file://"],
    ["--storage", "file:///"],
    ["--storage", "file://backup/strongroom"],
    ["--data", ""],
    ["--config", ""],
    ["--token-secret-file", ""],
  ] as const) {
    t.true(refused([flag, value]).startsWith(flag));
  }
  t.false(refused(["postgres://u:hunter2@h/x"]).includes("hunter2"));
  t.false(refused(["--listen", "http://u:hunter2@h"]).includes("hunter2"));
  t.true(refused([], { STRONGROOM_LISTEN: "0.0.0.0:80" }).includes("STRONGROOM_LISTEN"));
  t.true(refused(["--listen", "[::]:80"]).includes("[::]:80"));
});
