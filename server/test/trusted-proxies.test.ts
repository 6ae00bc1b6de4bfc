/** The caller's address behind proxies, over HTTP: in sessions, in the log, and for restrictByIP. */
import { Writable } from "node:stream";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { pino } from "pino";
import { Argon2Hasher } from "../src/adapters/argon2/argon2-hasher.ts";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { type RunningServer, type ServerParts, startServer } from "../src/main.ts";
import { SETTINGS, user } from "./support/harness.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

interface Context {
  /** Listens on every address of both families, and believes proxies on IPv4 loopback and in 10.0.0.0/8. */
  behind: RunningServer;
  /** On the same database, believes nobody. */
  direct: RunningServer;
  lines: { method?: string; address?: string }[];
}

const test = anyTest as TestFn<Context>;
const PASSWORD = "right password";

test.before(async (t) => {
  const database = await openMemoryDatabase();
  const passwords = new Argon2Hasher();
  const passwordHash = await passwords.hash(PASSWORD);
  const users = new Map(
    [
      user("anywhere", { passwordHash }),
      user("office", { passwordHash, restrictByIp: ["192.0.2.0/24", "2001:db8::/32"] }),
      user("local", { passwordHash, restrictByIp: ["127.0.0.1"] }),
    ].map((each) => [each.name, each]),
  );
  const lines: Context["lines"] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()));
      done();
    },
  });
  const parts: ServerParts = {
    database,
    store: new MemoryBlobStore(),
    config: { current: () => ({ users, collections: new Map(), organizations: new Map() }) },
    passwords,
    tokens: await JoseSigner.fromDatabase(database),
    log: pino({ level: "info" }, sink),
    settings: SETTINGS,
    sessionMs: 3_600_000,
    sessionLifetimeMs: 24 * 3_600_000,
    sweepMs: 60_000,
  };
  const trustedProxies = ["127.0.0.1", "10.0.0.0/8"];
  const behind = await startServer(parts, "::", 0, { trustedProxies });
  const direct = await startServer(parts, "::", 0);
  t.context = { behind, direct, lines };
});
test.after.always(async (t) => {
  // Both have the same database, which only one of them may close.
  await t.context.direct?.listener.stop(0, () => {});
  await t.context.direct?.sweeper.stop(0);
  await t.context.behind?.stop(0);
});

type Version = "1.1" | "2";

function sessions(server: RunningServer, httpVersion: Version, host = "127.0.0.1") {
  const baseUrl = `http://${host}:${server.listener.port}`;
  return createClient(SessionService, createConnectTransport({ baseUrl, httpVersion }));
}

async function addressSeen(
  client: ReturnType<typeof sessions>,
  forwardedFor: string | readonly string[],
  username = "anywhere",
): Promise<string | undefined> {
  const headers = new Headers();
  for (const each of [forwardedFor].flat()) headers.append("x-forwarded-for", each);
  headers.set("forwarded", "for=203.0.113.99");
  headers.set("x-real-ip", "203.0.113.98");
  try {
    return (await client.login({ username, password: PASSWORD }, { headers })).session?.address;
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.Unauthenticated) return undefined;
    throw error;
  }
}

const cases: [forwardedFor: string | string[], seen: string][] = [
  ["192.0.2.7", "192.0.2.7"],
  ["2001:db8::7", "2001:db8::7"],
  ["203.0.113.1, 192.0.2.7, 10.1.2.3", "192.0.2.7"],
  [["203.0.113.1", "192.0.2.7"], "192.0.2.7"],
  ["[2001:db8::7]:4711, ::ffff:10.1.2.3", "2001:db8::7"],
  ["192.0.2.7, nonsense", "127.0.0.1"],
];

for (const version of ["1.1", "2"] as const) {
  test(`HTTP/${version}: a trusted proxy names the caller of the session and the log`, async (t) => {
    const client = sessions(t.context.behind, version);
    for (const [forwardedFor, seen] of cases) {
      t.is(await addressSeen(client, forwardedFor), seen, String(forwardedFor));
      t.true(t.context.lines.some(({ address }) => address === seen));
    }
  });

  test(`HTTP/${version}: nobody else is trusted`, async (t) => {
    for (const [forwardedFor] of cases) {
      t.is(await addressSeen(sessions(t.context.direct, version), forwardedFor), "127.0.0.1");
      // IPv6 loopback is no trusted proxy here.
      t.is(await addressSeen(sessions(t.context.behind, version, "[::1]"), forwardedFor), "::1");
    }
  });

  test(`HTTP/${version}: restrictByIP goes by the caller, at login and on every call`, async (t) => {
    await restricted(t, version);
  });
}

async function restricted(t: ExecutionContext<Context>, version: Version): Promise<void> {
  const behind = sessions(t.context.behind, version);
  const direct = sessions(t.context.direct, version);
  t.is(await addressSeen(behind, "192.0.2.7", "office"), "192.0.2.7");
  t.is(await addressSeen(behind, "2001:db8::7", "office"), "2001:db8::7");
  t.is(await addressSeen(behind, "203.0.113.1", "office"), undefined);
  t.is(await addressSeen(behind, "192.0.2.7, 203.0.113.1", "office"), undefined, "spoofed in front");
  t.is(await addressSeen(direct, "192.0.2.7", "office"), undefined, "spoofed without a proxy");
  t.is(await addressSeen(sessions(t.context.behind, version, "[::1]"), "192.0.2.7", "office"), undefined);
  t.is(await addressSeen(behind, "203.0.113.1", "local"), undefined, "the proxy's address is not the caller's");
  t.is(await addressSeen(direct, "203.0.113.1", "local"), "127.0.0.1");

  const from = { headers: { "x-forwarded-for": "192.0.2.7" } };
  const { token } = await behind.login({ username: "office", password: PASSWORD }, from);
  const as = (address: string) => ({ headers: { authorization: `Bearer ${token}`, "x-forwarded-for": address } });
  t.is((await behind.whoAmI({}, as("192.0.2.99"))).session?.user, "office");
  await t.throwsAsync(behind.whoAmI({}, as("203.0.113.1")), { message: /^\[unauthenticated\]/ });
  await t.throwsAsync(direct.whoAmI({}, as("192.0.2.7")), { message: /^\[unauthenticated\]/ });
}
