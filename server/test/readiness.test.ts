import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { DirectoryBlobStore } from "../src/adapters/filesystem/directory-blob-store.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { type BlobStore, BlobStoreError } from "../src/app/ports/blob-store.ts";
import type { ConfigStatus } from "../src/app/ports/config-source.ts";
import { Readiness, type ReadinessDeps, type ReadinessTimes } from "../src/app/upkeep/readiness.ts";
import { READINESS_PROBES } from "../src/domain/object-keys.ts";
import { FaultyBlobStore } from "./support/faulty-blob-store.ts";

const EMPTY = { users: new Map(), collections: new Map(), organizations: new Map() };

function readiness(store: BlobStore, change: Partial<ReadinessDeps> = {}, times: Partial<ReadinessTimes> = {}) {
  let ids = 0;
  const logged: string[] = [];
  const deps: ReadinessDeps = {
    store,
    database: { ping: async () => {} },
    config: { current: () => EMPTY },
    log: {
      debug: () => {},
      info: (_fields, message) => void logged.push(message),
      warn: (fields, message) => void logged.push(`${message} ${JSON.stringify(fields)}`),
      error: (_fields, message) => void logged.push(message),
    },
    clock: () => ({ status: "right", message: "right" }),
    newId: () => `id-${ids++}`,
    ...change,
  };
  return { readiness: new Readiness(deps, { limitMs: 60_000, freshMs: 0, ...times }), logged };
}

async function keys(store: BlobStore, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
}

const storage = async (of: Readiness) => (await of.check()).find((check) => check.name === "storage")!;

async function directoryStore(t: ExecutionContext): Promise<{ store: DirectoryBlobStore; dir: string }> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-ready-"));
  const store = await DirectoryBlobStore.open(dir);
  t.teardown(async () => {
    await store.close();
    await rm(dir, { recursive: true, force: true });
  });
  return { store, dir };
}

test("a probe leaves nothing behind, in memory and in a directory", async (t) => {
  const { store, dir } = await directoryStore(t);
  for (const each of [store, new MemoryBlobStore()]) {
    const { readiness: ready } = readiness(each);
    t.true((await storage(ready)).ok);
    t.true((await storage(ready)).ok);
    t.deepEqual(await keys(each), []);
  }
  t.deepEqual(await readdir(join(dir, "objects")), []);
});

test("what a server that died in a probe left is deleted once it is old; other servers' probes are not", async (t) => {
  const { store } = await directoryStore(t);
  const old = `${READINESS_PROBES}${Date.now() - 2 * 3_600_000}-x`;
  const young = `${READINESS_PROBES}${Date.now()}-y`;
  for (const key of [old, young, `${READINESS_PROBES}not-ours`]) await store.put(key, Buffer.from("x"));
  t.true((await storage(readiness(store).readiness)).ok);
  t.deepEqual(await keys(store, READINESS_PROBES), [young, `${READINESS_PROBES}not-ours`].sort());
});

for (const operation of ["put", "get", "delete"] as const) {
  for (const when of ["before", "after"] as const) {
    test(`a store that fails to ${operation}, ${when} the effect, is not ready, then ready again`, async (t) => {
      const store = new FaultyBlobStore(new MemoryBlobStore());
      const { readiness: ready, logged } = readiness(store);
      store.fail(operation, { when, error: new BlobStoreError("read-only file system") });
      t.like(await storage(ready), { ok: false, message: "read-only file system" });
      store.assertAllFired(t);
      t.true((await storage(ready)).ok);
      t.deepEqual(logged, ['readiness: not ready {"storage":"read-only file system"}', "readiness: ready again"]);
      // A deletion that failed is not hidden: the object is an hour old at most when somebody deletes it.
      t.is((await keys(store)).length, operation === "delete" && when === "before" ? 1 : 0);
    });
  }
}

test("a store that gives other bytes is not ready", async (t) => {
  const store = new MemoryBlobStore();
  const liar = new Proxy(store, {
    get: (target, name) =>
      name === "get"
        ? async () => Buffer.from("other")
        : (Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name)),
  });
  t.regex((await storage(readiness(liar).readiness)).message, /other bytes/);
  t.deepEqual(await keys(store), []);
});

test("a store that hangs is not ready after the limit, is asked once, and leaves nothing later", async (t) => {
  const store = new FaultyBlobStore(new MemoryBlobStore());
  const stall = store.stall("put");
  const { readiness: ready } = readiness(store, {}, { limitMs: 20 });
  for (let i = 0; i < 3; i++) t.regex((await storage(ready)).message, /^no answer within/);
  await stall.reached;
  stall.release();
  await ready.idle();
  t.deepEqual(await keys(store), []);
  t.true((await storage(readiness(store).readiness)).ok);
});

test("database and configuration, each with its reason; asking often looks once", async (t) => {
  let pings = 0;
  let status: ConfigStatus = { problem: "a.yaml:1: wrong", loadedAt: new Date(), reloads: 0, refusals: 1 };
  const change: Partial<ReadinessDeps> = {
    database: {
      ping: async () => {
        pings++;
        throw new Error("the database does not answer");
      },
    },
    config: { current: () => EMPTY, status: () => status },
  };
  const { readiness: ready } = readiness(new MemoryBlobStore(), change, { freshMs: 3_600_000 });
  const answers = await Promise.all([ready.check(), ready.check(), ready.check()]);
  answers.push(await ready.check());
  t.is(pings, 1);
  for (const checks of answers) {
    t.deepEqual(
      checks.map(({ name, ok }) => [name, ok]),
      [
        ["database", false],
        ["storage", true],
        ["configuration", false],
        ["clock", true],
      ],
    );
  }
  t.is(answers[0]![2]!.message, "a change is refused, the last good state is in force: a.yaml:1: wrong");
  status = { ...status, problem: undefined };
  t.true((await readiness(new MemoryBlobStore(), { config: change.config! }).readiness.check())[2]!.ok);
});
