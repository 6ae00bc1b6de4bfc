import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import type { PartLister } from "../src/adapters/blob-store/part-lister.ts";
import type { BlobStore, PendingBlob } from "../src/app/ports/blob-store.ts";
import {
  begin,
  collect,
  numbersFrom,
  objectOf,
  type Piece,
  partsOf,
  read,
  storedIndexes,
  threeParts,
  write,
} from "./support/blob-store-tools.ts";
import { filesBelow, openDirectory } from "./support/directory-store-tools.ts";
import type { WriterEvent } from "./support/directory-store-writer.ts";

const KEY = "dumps/a/1";
const FINISHED = ["meta/dumps/a/1", "objects/dumps/a/1", "pending/"];
const LEFTOVER = `pending/tmp-${"0".repeat(32)}`;

/** A directory as a process that died left it. */
interface Crashed {
  readonly root: string;
  readonly blob: PendingBlob;
  readonly data: Uint8Array;
  readonly pieces: readonly Piece[];
}

/**
 * The states that a death between two steps of `complete` leaves, made by hand from a directory copied before it and
 * one copied after it.
 * @param make changes the first; the second is there to take things from.
 */
function crashState(
  title: string,
  isPublished: boolean,
  make: (before: string, after: string, token: string) => Promise<void>,
): void {
  test(`death ${title}: completing again ends it`, async (t) => {
    const { root, blob, data, pieces } = await crash(t, make);
    const store = await openDirectory(t, root);
    t.is((await store.stat(KEY)) !== undefined, isPublished);
    t.deepEqual(await collect(store.listPending()), isPublished ? [] : [blob]);
    await store.complete(blob, "upload-1", partsOf(pieces));
    t.deepEqual(await store.stat(KEY), { key: KEY, size: BigInt(data.length), uploadId: "upload-1" });
    t.true((await read(store, KEY)).equals(data));
    t.deepEqual(await filesBelow(root), FINISHED);
  });

  test(`death ${title}: aborting ${isPublished ? "leaves the object" : "leaves nothing"}`, async (t) => {
    const { root, blob, data } = await crash(t, make);
    const store = await openDirectory(t, root);
    await store.abort(blob);
    if (isPublished) t.true((await read(store, KEY)).equals(data));
    t.deepEqual(await filesBelow(root), isPublished ? FINISHED : ["meta/", "objects/", "pending/"]);
  });

  test(`death ${title}: another upload ${isPublished ? "leaves the object" : "may have the key"}`, async (t) => {
    const { root, blob } = await crash(t, make);
    const store = await openDirectory(t, root);
    const { pieces, data } = threeParts(store, "the other");
    const other = await begin(store, KEY, "upload-2");
    for (const piece of pieces) await write(store, other, piece);
    const completing = store.complete(other, "upload-2", partsOf(pieces));
    if (isPublished) {
      await t.throwsAsync(completing);
    } else {
      await completing;
      await store.abort(blob);
      t.true((await read(store, KEY)).equals(data));
      t.is((await store.stat(KEY))?.uploadId, "upload-2");
    }
  });
}

async function crash(
  t: ExecutionContext,
  make: (before: string, after: string, token: string) => Promise<void>,
): Promise<Crashed> {
  const directory = await temporaryFolder(t);
  const [root, after] = [join(directory, "before"), join(directory, "after")];
  const store = await openDirectory(t, root);
  const { data, pieces } = threeParts(store, "crash");
  const blob = await begin(store, KEY, "upload-1");
  for (const piece of pieces) await write(store, blob, piece);
  // Closed first: copying the lock file would drop the lock.
  await store.close();
  await cp(root, after, { recursive: true });
  const other = await openDirectory(t, after);
  await other.complete(blob, "upload-1", partsOf(pieces));
  await other.close();
  await make(root, after, blob.token);
  return { root, blob, data, pieces };
}

crashState("before the first step", false, async () => {});
crashState("while the origin was being written", false, async (before) => {
  await writeFile(join(before, LEFTOVER), '{"uploadId":');
});
crashState("before the rename", false, async (before, after) => {
  await cp(join(after, "meta"), join(before, "meta"), { recursive: true });
});
crashState("before the rename, with the directories made", false, async (before, after) => {
  await cp(join(after, "meta"), join(before, "meta"), { recursive: true });
  await mkdir(join(before, "objects", "dumps", "a"), { recursive: true });
});
crashState("after the rename", true, async (before, after, token) => {
  await cp(join(after, "meta"), join(before, "meta"), { recursive: true });
  await mkdir(join(before, "objects", "dumps", "a"), { recursive: true });
  await rename(join(before, "pending", token, "data"), join(before, "objects", KEY));
});
crashState("during the removal of what was left", true, async (before, after, token) => {
  await cp(join(after, "meta"), join(before, "meta"), { recursive: true });
  await cp(join(after, "objects"), join(before, "objects"), { recursive: true });
  await rename(join(before, "pending", token), join(before, LEFTOVER));
});
crashState("after the last step, before the answer", true, async (before, after) => {
  await rm(before, { recursive: true });
  await cp(after, before, { recursive: true });
});

test("death while an upload was begun or a small object was put leaves nothing", async (t) => {
  const root = await temporaryFolder(t);
  await (await openDirectory(t, root)).close();
  await mkdir(join(root, LEFTOVER));
  await writeFile(join(root, LEFTOVER, "upload.json"), "{");
  await writeFile(join(root, LEFTOVER.replace("-0", "-1")), "half of what was p");
  const store = await openDirectory(t, root);
  t.deepEqual(await collect(store.listPending()), []);
  t.deepEqual(await filesBelow(root), ["meta/", "objects/", "pending/"]);
});

test("death during a deletion: deleting again ends it, and the key may be put", async (t) => {
  const { root, blob, pieces } = await crash(t, async () => {});
  const store = await openDirectory(t, root);
  await store.complete(blob, "upload-1", partsOf(pieces));
  // The object goes before its origin.
  await rm(join(root, "objects", KEY));
  t.is(await store.stat(KEY), undefined);
  await store.put(KEY, Buffer.from("x"));
  t.is((await store.stat(KEY))?.uploadId, undefined);
  await store.delete(KEY);
  await store.delete(KEY);
  t.deepEqual(await filesBelow(root), ["meta/", "objects/", "pending/"]);
});

test("death while a part was being written: its marker is missing, and so is the part", async (t) => {
  const { root, blob, data, pieces } = await crash(t, async (before, _after, token) => {
    const directory = join(before, "pending", token);
    const marker = (await readdir(directory)).find((name) => name.startsWith("part-2-"))!;
    await rm(join(directory, marker));
    await truncate(join(directory, "data"), (await stat(join(directory, "data"))).size - 100);
  });
  const store = await openDirectory(t, root);
  t.deepEqual(await storedIndexes(store, blob), [0, 1]);
  await t.throwsAsync(store.complete(blob, "upload-1", partsOf(pieces)), { message: /part 2 is not stored/ });
  await write(store, blob, pieces[2]!);
  await store.complete(blob, "upload-1", partsOf(pieces));
  t.true((await read(store, KEY)).equals(data));
});

for (let round = 1; round <= 3; round++) {
  test(`kill -9 at random moments loses nothing acknowledged and shows nothing partial, ${round}`, async (t) => {
    const root = await temporaryFolder(t);
    const random = numbersFrom(`kill ${round}`);
    const finished = new Map<string, string>();
    for (let death = 1; death <= 6; death++) {
      const events = await writeAndDie(root, `${round}-${death}`, 1 + Math.floor(random() * 60), random() * 8);
      t.true(events.length > 0);
      // Opening proves that the lock went with the process.
      const store = await openDirectory(t, root);
      await checkAfterDeath(t, store, events, finished, random);
      await store.close();
    }
    const store = await openDirectory(t, root);
    for (const [key, uploadId] of finished) {
      t.true((await read(store, key)).equals(objectOf(store, uploadId).data), key);
      await store.delete(key);
      await store.delete(`${key}.json`);
    }
    t.true(finished.size > 0);
    t.deepEqual(await filesBelow(root), ["meta/", "objects/", "pending/"], "nothing is unrecorded");
  });
}

/** Runs the writer until it has said so many things and a moment longer, kills it, and gives all that it said. */
async function writeAndDie(root: string, seed: string, count: number, momentMs: number): Promise<WriterEvent[]> {
  const program = fileURLToPath(new URL("./support/directory-store-writer.ts", import.meta.url));
  const child = spawn(process.execPath, [program, root, seed], { stdio: ["ignore", "pipe", "inherit"] });
  const died = once(child, "exit");
  const events: WriterEvent[] = [];
  for await (const line of createInterface(child.stdout)) {
    events.push(JSON.parse(line));
    if (events.length === count) {
      await delay(momentMs);
      child.kill("SIGKILL");
    }
  }
  await died;
  return events;
}

/** Compares a store with what its writer said before it died, then ends what it left unfinished. */
async function checkAfterDeath(
  t: ExecutionContext,
  store: BlobStore & PartLister,
  events: readonly WriterEvent[],
  finished: Map<string, string>,
  random: () => number,
): Promise<void> {
  const said = (what: WriterEvent["what"]) => events.filter((event) => event.what === what);
  for (const { key, uploadId } of said("completed")) finished.set(key, uploadId);
  for (const [key, uploadId] of finished) t.is((await store.stat(key))?.uploadId, uploadId, `${key} was acknowledged`);
  for (const { key, uploadId } of said("put")) t.is(String(await store.get(`${key}.json`, 100)), uploadId);

  for await (const { key } of store.list("")) {
    const uploadId = (await store.stat(key))?.uploadId;
    if (uploadId === undefined) continue;
    t.true((await read(store, key)).equals(objectOf(store, uploadId).data), `${key} is whole`);
    // Its completion was not acknowledged but happened.
    finished.set(key, uploadId);
  }

  const pending = new Map((await collect(store.listPending())).map((blob) => [blob.token, blob]));
  const aborting = new Set(said("aborting").map(({ token }) => token));
  for (const { token } of said("aborted")) t.false(pending.has(token));
  for (const { key, token, uploadId } of said("begun")) {
    if (!pending.has(token)) {
      t.true(finished.has(key) || aborting.has(token), `${key} was acknowledged`);
      continue;
    }
    const stored = new Set(await storedIndexes(store, { key, token }));
    for (const event of said("part"))
      if (event.token === token) t.true(stored.has(event.index!), `part ${event.index}`);
    if (random() < 0.3) continue;
    const { pieces, data } = objectOf(store, uploadId);
    for (const piece of pieces) if (!stored.has(piece.part.index)) await write(store, { key, token }, piece);
    await store.complete({ key, token }, uploadId, partsOf(pieces));
    t.true((await read(store, key)).equals(data));
    finished.set(key, uploadId);
  }
  for await (const blob of store.listPending()) await store.abort(blob);
}
