import { createHash } from "node:crypto";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollection } from "../src/app/collections/collections.ts";
import { collectionFigures } from "../src/app/collections/figures.ts";
import {
  type CollectionFilter,
  EVERY_COLLECTION,
  LOOKED_AT_ONCE,
  listCollections,
} from "../src/app/collections/list-collections.ts";
import type { Database, Transaction } from "../src/app/ports/database.ts";
import { type Harness, harnessTest, MIB, principal, user } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

test("a collection has the id it keeps from the first time somebody sees it", async (t) => {
  const { h } = t.context;
  const deps = { ...h.deps, sha256: (text: string) => createHash("sha256").update(text).digest("hex") };
  for (const name of ["seen-1", "seen-2", "seen-3"]) h.add({ name });
  const list = async (afterName?: string, pageSize = 100) =>
    (await listCollections(deps, h.admin, { ...EVERY_COLLECTION, afterName, pageSize })).collections;

  const first = await list(undefined, 1);
  t.regex(first[0]!.id, /^[0-9a-f-]{36}$/);
  const atOnce = await Promise.all([list(), list()]);
  t.deepEqual(atOnce[0], atOnce[1]);
  const ids = new Map((await list()).map(({ name, id }) => [name, id]));
  t.is(new Set(ids.values()).size, ids.size);
  t.false([...ids.values()].includes(""));
  t.is(ids.get(first[0]!.name)!, first[0]!.id);

  await h.upload("seen-2", openpgpMessage(MIB));
  t.is((await getCollection(deps, h.admin, "seen-2")).id, ids.get("seen-2")!);
  t.deepEqual(new Map((await list()).map(({ name, id }) => [name, id])), ids);
});

test("an overview says how each collection is, filtered and by pages, and how many there are", async (t) => {
  const { h } = t.context;
  const deps = { ...h.deps, sha256: String };
  h.collections.clear();
  const uploader = principal(user("ann"));
  const mine = { accessControl: [{ userName: "ann", roles: ["backupUploader" as const] }] };
  h.add({ name: "of-a-1", organization: "a", maxAgeMs: 3_600_000, ...mine });
  h.add({ name: "of-a-2", organization: "a", maxAgeMs: 3_600_000 });
  h.add({ name: "of-b-1", organization: "b", maxOneVersionSize: 1000n, ...mine });
  h.add({ name: "other", maxAgeMs: 3_600_000 });
  h.add({ name: "gone" });
  await h.upload("of-a-1", openpgpMessage(MIB));
  await h.upload("of-b-1", openpgpMessage(2000), uploader);
  await h.upload("gone", openpgpMessage(1024));
  h.collections.delete("gone");
  const names = async (filter: Partial<CollectionFilter>, by = h.admin) => {
    const page = await listCollections(deps, by, {
      ...EVERY_COLLECTION,
      ...filter,
      afterName: undefined,
      pageSize: 100,
    });
    t.is(page.total, page.collections.length);
    t.is(page.nextAfter, undefined);
    return page.collections.map(({ name, status }) => `${name} ${status}`);
  };
  const frozen = ["gone failed", "seen-2 failed"];
  t.deepEqual(await names({}), [
    frozen[0]!,
    "of-a-1 ok",
    "of-a-2 failed",
    "of-b-1 warning",
    "other failed",
    frozen[1]!,
  ]);
  t.deepEqual(await names({ organization: "a" }), ["of-a-1 ok", "of-a-2 failed"]);
  t.deepEqual(await names({ namePrefix: "of-" }), ["of-a-1 ok", "of-a-2 failed", "of-b-1 warning"]);
  t.deepEqual(await names({ namePrefix: "g" }), [frozen[0]!]);
  t.deepEqual(await names({ health: ["warning"] }), ["of-b-1 warning"]);
  t.deepEqual(await names({ health: ["failed", "warning"], namePrefix: "o" }), [
    "of-a-2 failed",
    "of-b-1 warning",
    "other failed",
  ]);
  t.deepEqual(await names({}, uploader), ["of-a-1 ok", "of-b-1 warning"], "each sees what it may see");
  t.deepEqual(await names({ namePrefix: "gone" }, uploader), []);
  t.deepEqual(await names({}, principal(user("nobody"))), []);

  for (const health of [[], ["failed", "warning"]] as const) {
    const seen: string[] = [];
    let afterName: string | undefined;
    do {
      const page = await listCollections(deps, h.admin, { ...EVERY_COLLECTION, health, afterName, pageSize: 2 });
      if (afterName === undefined) t.is(page.total, health.length === 0 ? 6 : 5);
      t.true(page.collections.length <= 2);
      seen.push(...page.collections.map(({ name }) => name));
      afterName = page.nextAfter;
    } while (afterName !== undefined);
    t.deepEqual(seen, ["gone", ...(health.length === 0 ? ["of-a-1"] : []), "of-a-2", "of-b-1", "other", "seen-2"]);
  }

  const all = await listCollections(deps, h.admin, { ...EVERY_COLLECTION, afterName: undefined, pageSize: 100 });
  const found = all.collections.find(({ name }) => name === "of-b-1")!;
  t.like(found.facts, { liveVersions: 1, storedBytes: 2000n, reservedBytes: 0n, trashBytes: 0n, openUploads: 0 });
  t.like(found.facts.newest, { number: 1n, size: 2000n, userName: "ann", begunAt: h.clock.now });
  t.deepEqual(
    found.problems.map(({ name }) => name),
    ["size"],
  );
});

/** A database that notes how many collections each query for facts asks for. */
function noting(database: Database, asked: number[]): Database {
  const noted = (tx: Transaction): Transaction => ({
    ...tx,
    live: {
      ...tx.live,
      facts: async (wanted, now) => {
        asked.push(wanted.length);
        return await tx.live.facts(wanted, now);
      },
    },
  });
  return new Proxy(database, {
    get(target, name) {
      const value = Reflect.get(target, name) as unknown;
      if (name === "transaction" || name === "read")
        return async (work: (tx: Transaction) => Promise<unknown>) =>
          await target[name](async (tx) => await work(noted(tx)));
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

test("collections of a health are looked for in parts, until a page is full", async (t) => {
  const { h } = t.context;
  h.collections.clear();
  for (let n = 1000; n < 2200; n++) h.add({ name: `many-${n}`, maxAgeMs: 3_600_000 });
  const asked: number[] = [];
  const deps = { ...h.deps, sha256: String, database: noting(h.deps.database, asked) };
  const page = async (afterName?: string) =>
    await listCollections(deps, h.admin, {
      namePrefix: "many-",
      organization: "",
      health: ["failed"],
      afterName,
      pageSize: 10,
    });
  const first = await page();
  t.is(first.total, 1200);
  t.true(
    asked.every((count) => count <= LOOKED_AT_ONCE),
    String(asked),
  );
  asked.length = 0;
  const second = await page(first.nextAfter);
  t.deepEqual([second.collections[0]!.name, second.collections.length, second.total], ["many-1010", 10, undefined]);
  t.deepEqual(asked, [LOOKED_AT_ONCE]);
  asked.length = 0;
  const last = await page("many-2195");
  t.deepEqual([last.collections.map(({ name }) => name).at(-1), last.nextAfter], ["many-2199", undefined]);
  t.deepEqual(asked, [4]);

  asked.length = 0;
  const { collections } = await collectionFigures(deps);
  t.is(collections.length, 1200);
  t.deepEqual(asked, [500, 500, 200]);
  h.collections.clear();
});
