/**
 * Upgrades: the last release (`testkit/fixtures/release/`) with this version, as client and server, and what it left
 * behind under this version.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StrongroomClient } from "@strongroom/client-sdk";
import {
  collectionDocument,
  initConfiguration,
  LOGIN,
  personEnvironment,
  succeeded,
} from "@strongroom/testkit/installation";
import { type Outcome, run, type ServerProcess, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { startProxy } from "@strongroom/testkit/proxy";
import { cutAfter } from "@strongroom/testkit/proxy-behaviours";
import { releaseFacts, unpackReleasedInstallation, unpackReleasedProgram } from "@strongroom/testkit/released";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type ExecutionContext, type TestFn } from "ava";

const test = anyTest as TestFn<{ released: string }>;
const MIB = 1024 * 1024;
const SERVE = ["--segment-size", "1M", "--sweep-interval", "1s"];

test.before(async (t) => {
  t.context = { released: await unpackReleasedProgram(join(await temporaryFolder({ teardown: atEnd }), "program")) };
});
const ends: (() => unknown)[] = [];
const atEnd = (end: () => unknown) => void ends.push(end);
test.after.always(async () => {
  for (const end of ends) await end();
});

type Strongroom = (args: readonly string[], input?: string | Uint8Array) => Promise<Outcome>;

/** A person with a home of its own, who uses a program. */
async function person(folder: string, program: string, url: string): Promise<Strongroom> {
  const home = join(folder, `home-${randomBytes(4).toString("hex")}`);
  await mkdir(home, { mode: 0o700 });
  return async (args, input = "") =>
    await run(program, args, { input, cwd: folder, env: personEnvironment(home, url) });
}

async function serve(t: ExecutionContext, data: string, program: string): Promise<ServerProcess> {
  const server = await startServerProcess(["--data", data, ...SERVE], {}, undefined, program);
  t.teardown(async () => await server.end("SIGKILL"));
  return server;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

async function numbers(t: ExecutionContext, strongroom: Strongroom, collection: string): Promise<number[]> {
  const { stdout } = succeeded(t, await strongroom(["ls", collection, "--json"]));
  return (JSON.parse(stdout.toString()) as { versions: { version: number }[] }).versions.map(({ version }) => version);
}

test("what the last release stored is all there after the upgrade, and goes on", async (t) => {
  const folder = await temporaryFolder(t);
  await unpackReleasedInstallation(folder);
  const { password, versions } = await releaseFacts();
  const server = await serve(t, join(folder, "data"), STRONGROOM);
  for (const program of [STRONGROOM, t.context.released]) {
    const strongroom = await person(folder, program, server.url);
    succeeded(t, await strongroom(LOGIN, password));
    for (const collection of ["few", "many"]) {
      const live = versions.filter((each) => each.collection === collection && each.state === "live");
      t.deepEqual(await numbers(t, strongroom, collection), live.map(({ number }) => number).reverse());
    }
  }
  const strongroom = await person(folder, STRONGROOM, server.url);
  succeeded(t, await strongroom(LOGIN, password));
  const restore = async (collection: string, number: number) =>
    await strongroom(["restore", collection, "--version", String(number), "--private-key", "test.age.key"]);

  // Removed, and not yet deleted: it comes back.
  const [removed] = versions.filter((each) => each.collection === "many" && each.state === "removed");
  succeeded(t, await strongroom(["undelete", "many", String(removed!.number)]));
  for (const { collection, number, state, sha256: digest } of versions) {
    if (state !== "live" && number !== removed!.number) continue;
    const outcome = await restore(collection, number);
    // What is marked has bytes behind its end, and is whole before.
    t.is(sha256(succeeded(t, outcome).stdout), digest, `${collection}/${number}`);
  }
  const held = versions.find((each) => each.held)!;
  t.regex((await strongroom(["rm", "many", String(held.number), "--yes"])).stderr, /held/);
  const health = await strongroom(["health", "many"]);
  t.is(health.code, 8);
  t.regex(health.stdout.toString(), /integrity +failed .*version 9\b/);

  // Rotation goes on with what was there.
  const dump = randomBytes(1000);
  succeeded(t, await strongroom(["backup", "few", "--public-key", "test.age.pub"], dump));
  t.deepEqual(await numbers(t, strongroom, "few"), [6, 5]);
  t.is(sha256(succeeded(t, await restore("few", 6)).stdout), sha256(dump));
});

for (const [client, server] of [
  ["release", "this version"],
  ["this version", "release"],
] as const) {
  test(`the program of ${client} with the server of ${server}`, async (t) => {
    const folder = await temporaryFolder(t);
    const programOf = { release: t.context.released, "this version": STRONGROOM };
    const data = join(folder, "data");
    const password = await initConfiguration(join(data, "config"), "db");
    const serving = await serve(t, data, programOf[server]);
    const proxy = await startProxy(serving.url);
    t.teardown(async () => await proxy.close());
    const strongroom = await person(folder, programOf[client], proxy.url);
    succeeded(t, await strongroom(LOGIN, password));
    succeeded(t, await strongroom(["keygen", "--name", "test"]));

    // Several segments over a line that is cut again and again: what is acknowledged is not sent again.
    const dump = randomBytes(5 * MIB + 17);
    const heal = proxy.behave(cutAfter(2.5 * MIB));
    const backup = ["backup", "db", "--public-key", "test.pub.asc", "--program", "library", "--label", "a=b", "--json"];
    const sent = JSON.parse(succeeded(t, await strongroom(backup, dump)).stdout.toString());
    t.true(proxy.fired("cut") > 0);
    heal();
    t.is(sent.version, 1);
    t.deepEqual(await numbers(t, strongroom, "db"), [1]);
    const restore = ["restore", "db", "--private-key", "test.key.asc", "--program", "library"];
    t.is(sha256(succeeded(t, await strongroom(restore)).stdout), sha256(dump));
    succeeded(t, await strongroom(["health", "db"]));
    succeeded(t, await strongroom(["whoami"]));
    const failing = await strongroom([...backup, "--min-size", "1G"], dump);
    t.not(failing.code, 0);
    t.deepEqual(await numbers(t, strongroom, "db"), [1]);
    t.regex((await strongroom(["rm", "db", "1", "--yes"])).stderr, /is protected until/);
    succeeded(t, await strongroom(["logout"]));
  });
}

test("the SDK with the server of the last release, which refuses what is new by saying that it is older", async (t) => {
  const folder = await temporaryFolder(t);
  const data = join(folder, "data");
  const password = await initConfiguration(join(data, "config"), "db");
  const collection = "maxBackupsCount: 5, maxOneVersionSize: 100M, maxCollectionSize: 1G, encryption: age";
  await writeFile(join(data, "config/age.yaml"), collectionDocument("age", collection));
  const { url } = await serve(t, data, t.context.released);
  const anonymous = new StrongroomClient({ url });
  const { token } = await anonymous.login({ username: "admin", password });
  const lifetimeMs = 3_600_000;
  const lasting = await t.throwsAsync(anonymous.login({ username: "admin", password, lifetimeMs }));
  t.regex(lasting!.message, /older than this program/);
  const client = new StrongroomClient({ url, token });
  t.teardown(() => {
    anonymous.close();
    client.close();
  });
  const { sessions } = await client.sessions.listSessions({});
  t.is(sessions.length, 1, "the session that would last for another time was ended");

  const strongroom = await person(folder, STRONGROOM, url);
  succeeded(t, await strongroom(LOGIN, password));
  succeeded(t, await strongroom(["keygen", "--type", "age", "--name", "test"]));
  const dump = randomBytes(3 * MIB);
  const recipient = /age1\w+/.exec(
    succeeded(t, await run("cat", [join(folder, "test.age.pub")])).stdout.toString(),
  )![0];
  const { version } = await client.upload({
    collection: "age",
    source: (async function* () {
      yield dump;
    })(),
    encryption: { kind: "age", recipients: [recipient] },
  });
  t.is(version.number, 1n);
  const restored = await strongroom(["restore", "age", "--private-key", "test.age.key"]);
  t.is(sha256(succeeded(t, restored).stdout), sha256(dump));

  for (const args of [
    ["status"],
    ["status", "--server"],
    ["health", "--all"],
    ["hold", "age", "1", "--reason", "audit"],
    ["undelete", "age", "1"],
    ["keys", "age"],
    ["usage"],
    ["organizations"],
    ["audit", "list"],
    ["rotate-key"],
    ["get", "BackupUser"],
  ]) {
    const { code, stdout, stderr } = await strongroom(args);
    t.not(code, 0, args.join(" "));
    t.is(stdout.toString(), "");
    t.regex(stderr, /older than this program. Upgrade the server, or use the program of its version/, args.join(" "));
  }
});

test("an upload that is under way goes on over the upgrade of its server, with the program of either", async (t) => {
  for (const program of [t.context.released, STRONGROOM]) {
    const folder = await temporaryFolder(t);
    const data = join(folder, "data");
    const password = await initConfiguration(join(data, "config"), "db");
    let server = await serve(t, data, t.context.released);
    const proxy = await startProxy(() => server.url);
    t.teardown(async () => await proxy.close());
    const strongroom = await person(folder, program, proxy.url);
    succeeded(t, await strongroom(LOGIN, password));
    succeeded(t, await strongroom(["keygen", "--name", "test"]));
    const dump = randomBytes(6 * MIB);
    await writeFile(join(folder, "dump"), dump);
    // The rest of the dump comes when the server is the new one.
    const source = `head -c ${4 * MIB} dump; until [ -e upgraded ]; do sleep 0.1; done; tail -c ${2 * MIB} dump`;
    const keys = ["--public-key", "test.pub.asc", "--program", "library"];
    const backup = strongroom(["backup", "db", ...keys, "--memory", "2M", "-c", source]);
    const admin = await person(folder, STRONGROOM, proxy.url);
    succeeded(t, await admin(LOGIN, password));
    const received = async () => {
      const { stdout } = succeeded(t, await admin(["uploads", "db", "--json"]));
      const { uploads } = JSON.parse(stdout.toString()) as { uploads: { storedBytes: number }[] };
      return uploads[0]?.storedBytes ?? 0;
    };
    while ((await received()) < 2 * MIB) await sleep(100);
    t.is(await server.end("SIGTERM"), 0);
    server = await serve(t, data, STRONGROOM);
    await writeFile(join(folder, "upgraded"), "");
    succeeded(t, await backup);
    const restored = succeeded(t, await strongroom(["restore", "db", "--private-key", "test.key.asc"])).stdout;
    t.is(sha256(restored), sha256(dump));
    t.deepEqual(await numbers(t, strongroom, "db"), [1]);
  }
});

test("the last release refuses a database of this version, and says what to do", async (t) => {
  const folder = await temporaryFolder(t);
  const data = join(folder, "data");
  await initConfiguration(join(data, "config"), "db");
  const server = await serve(t, data, STRONGROOM);
  t.is(await server.end("SIGTERM"), 0);
  const refused = await t.throwsAsync(serve(t, data, t.context.released));
  t.regex(refused!.message, /migrated by a newer version of Strongroom, and there is no way back\. Start that version/);
  t.regex(refused!.message, /put back the copy of the database that was made before the upgrade/);
  for (const command of ["sweep", "verify"]) {
    const { code, stderr } = await run(t.context.released, [command, "--data", data]);
    t.not(code, 0);
    t.regex(stderr, /migrated by a newer version of Strongroom/);
  }
  // It has changed nothing.
  t.is(await (await serve(t, data, STRONGROOM)).end("SIGTERM"), 0);
});
