import { resolve } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { variableOf } from "@strongroom/command-line/option";
import { parseCommandLine } from "@strongroom/command-line/parse";
import { OptionValues } from "@strongroom/command-line/values";
import test from "ava";
import fc from "fast-check";
import { SERVE_OPTIONS } from "../src/commands/options.ts";
import { serve } from "../src/commands/serve.ts";
import { serverOptions } from "../src/commands/settings.ts";
import type { ServerOptions } from "../src/server-options.ts";

type Env = Record<string, string | undefined>;

const PROGRAM = { name: "strongroom", about: "", version: "0", options: [], examples: [], commands: [serve] };

/** What `strongroom serve` would be run with. */
async function parse(args: readonly string[], env: Env = {}): Promise<ServerOptions> {
  const line = parseCommandLine(PROGRAM, ["serve", ...args]);
  if ("text" in line) throw new Error("help was not asked for");
  return await serverOptions(OptionValues.resolve(serve.options, line.given, env), env);
}

/** The message that options are refused with. */
async function refused(args: readonly string[], env: Env = {}): Promise<string> {
  return await parse(args, env).then(
    () => {
      throw new Error(`accepted: ${args.join(" ")}`);
    },
    (error: unknown) => {
      if (error instanceof UsageError) return error.message;
      throw error;
    },
  );
}

/** The variable of an option. */
function environmentName(name: string): string {
  return variableOf(SERVE_OPTIONS.find((option) => option.name === name)!)!;
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

test("the defaults", async (t) => {
  const data = resolve("strongroom-data");
  t.deepEqual(await parse([]), {
    configDir: `${data}/config`,
    auditKeyFile: undefined,
    auditRetentionMs: 400 * 24 * 3_600_000,
    configPollMs: 5000,
    configReadOnly: false,
    monitoringSecretSha256: undefined,
    monitoringSecretFile: undefined,
    notifyAllowAddresses: [],
    database: { kind: "pglite", directory: `${data}/database` },
    storage: { kind: "directory", path: `${data}/storage` },
    host: "127.0.0.1",
    port: 8080,
    tls: undefined,
    trustedProxies: [],
    corsOrigins: [],
    genericStreams: false,
    maxConnections: undefined,
    maxConnectionsPerAddress: undefined,
    sessionMs: 6 * 3_600_000,
    sessionLifetimeMs: 7 * 24 * 3_600_000,
    sessionMaxMs: 6 * 3_600_000,
    tokenSecretFiles: [],
    tokenSecret: undefined,
    tokenSecretUse: "only",
    oldTokenSecretFile: undefined,
    segmentSize: 16n * 1024n * 1024n,
    sweepMs: 60_000,
    diskReserve: undefined,
    httpUploads: { bufferBytes: 256 * 1024 * 1024, commitGraceMs: 2000 },
    verification: { everyMs: 30 * 24 * 3_600_000, bytesPerSecond: 32n * 1024n * 1024n },
    shutdownGraceMs: 30_000,
    rateLimits: {
      login: { count: 20, perMs: 120_000 },
      health: { count: 600, perMs: 60_000 },
      requests: { count: 6000, perMs: 10_000 },
    },
    logFormat: "auto",
    logLevel: "info",
  });
});

test("the options cannot be changed", async (t) => {
  t.true(Object.isFrozen(await parse([])));
});

test("--data moves the embedded defaults, and only those that were not given", async (t) => {
  const moved = await parse(["--data", "/srv/strong room#1"]);
  t.is(moved.configDir, "/srv/strong room#1/config");
  t.is(pgliteDir(moved), "/srv/strong room#1/database");
  t.deepEqual(moved.storage, { kind: "directory", path: "/srv/strong room#1/storage" });
  const mixed = await parse(["--data", "/srv", "--config", "/etc/strongroom", "--storage", "mem://"]);
  t.is(mixed.configDir, "/etc/strongroom");
  t.is(pgliteDir(mixed), "/srv/database");
  t.deepEqual(mixed.storage, { kind: "memory", discard: false });
});

test("relative directories are those of the working directory", async (t) => {
  t.is((await parse(["--data", "here"])).configDir, resolve("here/config"));
  t.is(pgliteDir(await parse(["--database", "pglite:here"])), resolve("here"));
  t.deepEqual((await parse(["--storage", "file:./here"])).storage, { kind: "directory", path: resolve("here") });
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
  "notify-allow-addresses": {
    read: (o) => o.notifyAllowAddresses,
    values: [
      ["10.1.0.0/16,::1", ["10.1.0.0/16", "::1"]],
      ["127.0.0.1", ["127.0.0.1"]],
    ],
  },
  "cors-origins": {
    read: (o) => o.corsOrigins,
    values: [
      ["https://console.example.org", ["https://console.example.org"]],
      [" https://a.example.org, http://localhost:5173,", ["https://a.example.org", "http://localhost:5173"]],
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
  "session-lifetime": {
    read: (o) => o.sessionLifetimeMs,
    values: [
      ["1d", 86_400_000],
      ["30d", 30 * 86_400_000],
    ],
  },
  "session-duration-max": {
    read: (o) => o.sessionMaxMs,
    values: [
      ["2d", 2 * 86_400_000],
      ["366d", 366 * 86_400_000],
    ],
  },
  "token-secret-use": {
    read: (o) => o.tokenSecretUse,
    values: [
      ["sign", "sign"],
      ["verify", "verify"],
    ],
    beside: ["--token-secret-file", "/a"],
  },
  "old-token-secret-file": {
    read: (o) => o.oldTokenSecretFile,
    values: [
      ["/a", "/a"],
      ["/b", "/b"],
    ],
  },
  "audit-key-file": {
    read: (o) => o.auditKeyFile,
    values: [
      ["/a", "/a"],
      ["/b", "/b"],
    ],
  },
  "audit-retention": {
    read: (o) => o.auditRetentionMs,
    values: [
      ["1d", 86_400_000],
      ["30d", 30 * 86_400_000],
    ],
  },
  "token-secret-file": {
    read: (o) => o.tokenSecretFiles,
    values: [
      ["/a", ["/a"]],
      ["/b", ["/b"]],
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
  "disk-reserve": {
    read: (o) => o.diskReserve,
    values: [
      ["1G", 1_073_741_824n],
      ["0", 0n],
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
  "log-format": {
    read: (o) => o.logFormat,
    values: [
      ["json", "json"],
      ["text", "text"],
    ],
  },
  "http-buffer": {
    read: (o) => o.httpUploads.bufferBytes,
    values: [
      ["64M", 64 * 1024 * 1024],
      ["1M", 1024 * 1024],
    ],
  },
  "http-commit-grace": {
    read: (o) => o.httpUploads.commitGraceMs,
    values: [
      ["10s", 10_000],
      ["500ms", 500],
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

for (const { name, kind, variables } of SERVE_OPTIONS) {
  // Those of TLS go together; see below. The file of variables is none itself.
  if (kind === "switch" || name.startsWith("tls-") || variables.length === 0) continue;
  test(`--${name}: the flag wins over the environment, that over the default`, async (t) => {
    const variable = environmentName(name);
    const given = VALUES[name];
    if (given === undefined) return t.fail(`no values to test --${name} with`);
    const { read, values, beside = [] } = given;
    const parsed = async (args: readonly string[], env: Env = {}) => read(await parse([...beside, ...args], env));
    const [[one, oneRead], [two, twoRead]] = values;
    const usual = await parsed([]);
    t.notDeepEqual(oneRead, usual);
    t.notDeepEqual(twoRead, usual);
    t.deepEqual(await parsed([], { [variable]: one }), oneRead);
    t.deepEqual(await parsed([`--${name}`, two], { [variable]: one }), twoRead);
    t.deepEqual(await parsed([`--${name}=${one}`], { [variable]: two }), oneRead);
    t.deepEqual(await parsed([], { [variable]: "" }), usual, "empty is not given");
    t.deepEqual(await parsed([], { [variable]: undefined }), usual);
    t.deepEqual(
      await parsed([], { [name]: one, [variable.toLowerCase()]: one }),
      usual,
      "other variables do not count",
    );
  });
}

test("TLS takes a certificate and its key, and is as good as --allow-plaintext beyond loopback", async (t) => {
  const files = { cert: "/c.pem", key: "/k.pem", clientCa: undefined };
  t.deepEqual((await parse(["--tls-cert", "/c.pem", "--tls-key", "/k.pem"])).tls, files);
  t.deepEqual((await parse([], { STRONGROOM_TLS_CERT: "/c.pem", STRONGROOM_TLS_KEY: "/k.pem" })).tls, files);
  const all = ["--tls-cert", "c.pem", "--tls-key=k.pem", "--tls-client-ca", "ca.pem", "--listen", "0.0.0.0:8443"];
  t.deepEqual((await parse(all, { STRONGROOM_TLS_CERT: "/other" })).tls, {
    cert: resolve("c.pem"),
    key: resolve("k.pem"),
    clientCa: resolve("ca.pem"),
  });
  t.regex(await refused(["--tls-cert", "c"]), /^--tls-cert needs --tls-key \(STRONGROOM_TLS_KEY\)/);
  t.regex(await refused(["--tls-key", "k"]), /^--tls-key needs --tls-cert \(STRONGROOM_TLS_CERT\)/);
  t.regex(await refused(["--tls-client-ca", "k"]), /^--tls-client-ca needs --tls-cert/);
  t.regex(await refused(["--tls-client-ca", "k", "--tls-cert", "c"]), /^--tls-cert needs --tls-key/);
});

test("names of environment variables", async (t) => {
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
  ["notify-allow-addresses", "example.org"],
  ["cors-origins", "*"],
  ["cors-origins", "console.example.org"],
  ["cors-origins", "https://console.example.org/"],
  ["cors-origins", "https://console.example.org:443"],
  ["cors-origins", "ftp://console.example.org"],
  ["max-connections", "0"],
  ["max-connections", "off"],
  ["max-connections-per-address", "-1"],
  ["log-level", "verbose"],
  ["log-level", "INFO"],
];

for (const [option, value] of bad) {
  test(`--${option} ${value} is refused, and the message says where it stood`, async (t) => {
    for (const [args, env, place] of [
      [[`--${option}=${value}`], {}, `--${option}: `],
      [[], { [environmentName(option)]: value }, `${environmentName(option)}: `],
    ] as const) {
      const message = await refused(args, env);
      t.true(message.startsWith(place), message);
      t.true(message.length < 300);
    }
  });
}

test("unknown flags, arguments and missing values are refused", async (t) => {
  t.regex(await refused(["--databse", "x"]), /unknown option '--databse' \(Did you mean --database\?\)/);
  t.regex(await refused(["now"]), /too many arguments/);
  t.regex(await refused(["--listen"]), /--listen: the value is missing/);
  t.regex(await refused(["--listen", "--data"]), /--listen: the value is missing/);
  t.regex(await refused(["--allow-plaintext=yes"]), /--allow-plaintext: a switch is/);
  t.regex(await refused(["-x"]), /unknown option '-x'/);
});

test("a password inside a URL is never shown", async (t) => {
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
        const error = { message: await refused(args, env) };
        t.false(error.message.includes(password), error.message);
      }
    }
  }
  t.regex({ message: await refused(["--storage", urls[0]!]) }!.message, /got "postgres:\.\.\."/, "the scheme is");
});

const listens: [value: string, host: string, port: number][] = [
  ["127.0.0.1:8080", "127.0.0.1", 8080],
  ["127.1.2.3:1", "127.1.2.3", 1],
  ["localhost:65535", "localhost", 65_535],
  ["[::1]:8080", "::1", 8080],
  ["127.0.0.1:0", "127.0.0.1", 0],
];

for (const [value, host, port] of listens) {
  test(`--listen ${value} is loopback and needs no TLS`, async (t) => {
    const options = await parse(["--listen", value]);
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
  test(`--listen ${value} is refused without TLS until it is allowed`, async (t) => {
    const error = { message: await refused(["--listen", value]) };
    t.regex(error.message, /--listen .*TLS.*--allow-plaintext/);
    await refused([], { STRONGROOM_LISTEN: value });
    t.is((await parse(["--listen", value, "--allow-plaintext"])).host, host);
    for (const yes of ["1", "true", "yes", "on", "TRUE"]) {
      t.is((await parse(["--listen", value], { STRONGROOM_ALLOW_PLAINTEXT: yes })).host, host);
    }
    for (const no of ["", "0", "false", "no", "off", "perhaps"]) {
      await refused(["--listen", value], { STRONGROOM_ALLOW_PLAINTEXT: no });
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
  test(`--${option} ${value}`, async (t) => {
    const options = await parse([`--${option}`, value]);
    t.deepEqual(option === "database" ? pgliteDir(options) : options.storage, place);
  });
}

test("a PostgreSQL server, and where its password may come from", async (t) => {
  const url = "postgres://u@db.example.org/strongroom?sslmode=verify-full";
  const secret = "postgres://u:hunter2@db.example.org/strongroom?sslmode=verify-full";
  const password = async (args: string[], env: Env = {}) => postgresOf(await parse(args, env)).location.password;
  t.is(await password(["--database", url]), undefined);
  t.is(await password([], { STRONGROOM_DATABASE: secret }), "hunter2");
  t.is(await password(["--database", url], { PGPASSWORD: "other" }), "other");
  t.is(await password([], { STRONGROOM_DATABASE: secret, PGPASSWORD: "other" }), "hunter2");
  t.is(postgresOf(await parse(["--database", url], { PGPASSFILE: "/p" })).passwords.passFile, "/p");
  for (const flag of [secret, `${url}&password=hunter2`, "postgresql:///x?host=/run&password=hunter2"]) {
    const message = await refused(["--database", flag]);
    t.regex(message, /STRONGROOM_DATABASE.*--database-password-file/);
    t.false(message.includes("hunter2"));
  }
  const twice = { STRONGROOM_DATABASE: secret, STRONGROOM_DATABASE_PASSWORD_FILE: "/p" };
  t.regex(await refused([], twice), /leave one of them out/);
  t.regex(await refused(["--database-password-file", "/p"]), /no password/);
  for (const connections of ["0", "1001", "x", "1.5", "-1"]) {
    const args = ["--database", url, `--database-connections=${connections}`];
    t.regex(await refused(args), /from 1 to 1000/);
  }
});

test("segment sizes are whole MiB from 1M to 1G", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.bigInt({ min: 0n, max: 2n ** 31n }), async (bytes) => {
      const mib = 1_048_576n;
      for (const size of [bytes, (bytes / mib) * mib]) {
        const good = size >= mib && size <= 1024n * mib && size % mib === 0n;
        if (good) t.is((await parse(["--segment-size", String(size)])).segmentSize, size);
        else await refused(["--segment-size", String(size)]);
      }
    }),
  );
});

test("help is asked for by --help and -h, also beside what is wrong elsewhere", (t) => {
  for (const args of [["--help"], ["-h"], ["--listen", "nowhere", "-h"]])
    t.true("text" in parseCommandLine(PROGRAM, ["serve", ...args]));
});

test("the defaults that the help shows are those that apply", async (t) => {
  for (const { name, kind, defaultText } of SERVE_OPTIONS) {
    if (kind === "switch" || defaultText === undefined) continue;
    // A sentence about what it depends on.
    if (defaultText.includes(" ") && name !== "log-level") continue;
    const shown = name === "log-level" ? "info" : defaultText.replace("<data>", resolve("./strongroom-data"));
    t.deepEqual(await parse([`--${name}`, shown]), await parse([]), name);
  }
});

test("the examples of the help are good", async (t) => {
  for (const [line] of serve.examples) {
    const [, given = ""] = /strongroom serve(.*)$/.exec(line)!;
    await t.notThrowsAsync(
      parse(
        given
          .replaceAll('"', "")
          .split(" ")
          .filter((part) => part !== ""),
      ),
      line,
    );
  }
});

test("values that would break the server are refused", async (t) => {
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
    t.true((await refused([flag, value])).startsWith(flag));
  }
  t.false((await refused(["postgres://u:hunter2@h/x"])).includes("hunter2"));
  t.false((await refused(["--listen", "http://u:hunter2@h"])).includes("hunter2"));
  t.true((await refused([], { STRONGROOM_LISTEN: "0.0.0.0:80" })).includes("STRONGROOM_LISTEN"));
  t.true((await refused(["--listen", "[::]:80"])).includes("[::]:80"));
});

test("a token secret is named once, and its use needs one", async (t) => {
  const env = { STRONGROOM_TOKEN_SECRET: "0123456789abcdef0123456789abcdef" };
  t.is((await parse([], env)).tokenSecret, env.STRONGROOM_TOKEN_SECRET);
  t.is((await parse(["--token-secret-use", "verify"], env)).tokenSecretUse, "verify");
  const both = await t.throwsAsync(parse(["--token-secret-file", "/a"], env), {
    message: /give one of them, not both/,
  });
  t.false(both!.message.includes(env.STRONGROOM_TOKEN_SECRET));
  await t.throwsAsync(parse(["--token-secret-use", "sign"]), { message: /needs --token-secret-file/ });
  await t.throwsAsync(parse(["--session-duration-max", "1h"]), { message: /expected at least the 6h/ });
});
