import { createHash } from "node:crypto";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { getCollection, listCollections } from "../src/app/collections/collections.ts";
import { type Harness, harnessTest, MIB } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>);

test("a collection has the id it keeps from the first time somebody sees it", async (t) => {
  const { h } = t.context;
  const deps = { ...h.deps, sha256: (text: string) => createHash("sha256").update(text).digest("hex") };
  for (const name of ["seen-1", "seen-2", "seen-3"]) h.add({ name });
  const list = async (afterName?: string, pageSize = 100) =>
    (await listCollections(deps, h.admin, { afterName, pageSize })).collections;

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
