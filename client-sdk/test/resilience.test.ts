/**
 * Uploads and downloads through the SDK against a real server process, over a line that breaks in every way a line can
 * break.
 */

import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readlink, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import { startProxy, type TcpProxy } from "@strongroom/testkit/proxy";
import { cutAfter, loseAnswers, refuse, slow, stall, truncateAfter } from "@strongroom/testkit/proxy-behaviours";
import { Random } from "@strongroom/testkit/random";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import type { Timings } from "../src/connection/timings.ts";
import { type ClientOptions, StrongroomClient, type UploadProgress } from "../src/index.ts";
import { chunked, ciphertext } from "./support/bytes.ts";

const MIB = 1024 * 1024;
/** Of the server, for collections of usual size. */
const SEGMENT = 16 * MIB;
const PARALLEL = 2;
const none = { kind: "none" } as const;

const COLLECTION = collectionDocument(
  "hard",
  "maxBackupsCount: 3, maxOneVersionSize: 500M, maxCollectionSize: 3G, encryption: any-of, maxParallelUploads: 3",
);

interface Place {
  readonly dir: string;
  readonly token: string;
  server: ServerProcess;
}

const test = anyTest as TestFn<{ place: Place }>;

test.before(async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-resilience-"));
  const config = join(dir, "data", "config");
  const password = await initConfiguration(config, "db");
  await writeFile(join(config, "hard.yaml"), COLLECTION);
  const server = await startServerProcess(["--data", join(dir, "data")]);
  const client = new StrongroomClient({ url: server.url });
  const { token } = await client.login({ username: "admin", password });
  client.close();
  t.context = { place: { dir, token, server } };
});
test.after.always(async (t) => {
  const { place } = t.context;
  await place?.server.end("SIGTERM");
  if (place !== undefined) await rm(place.dir, { recursive: true, force: true });
});

async function proxied(t: ExecutionContext<{ place: Place }>): Promise<TcpProxy> {
  const proxy = await startProxy(() => t.context.place.server.url);
  t.teardown(() => proxy.close());
  return proxy;
}

function clientFor(t: ExecutionContext<{ place: Place }>, options: ClientOptions, timings: Partial<Timings> = {}) {
  const client = new StrongroomClient(
    { token: t.context.place.token, ...options },
    { retryBaseMs: 50, retryMaxMs: 400, ...timings },
  );
  t.teardown(() => client.close());
  return client;
}

/** Holds what is stored against what was given, over a connection without faults. */
async function assertStored(t: ExecutionContext<{ place: Place }>, number: bigint, bytes: Buffer): Promise<void> {
  const hash = createHash("sha256");
  const sink = (chunk: Uint8Array): void => void hash.update(chunk);
  await clientFor(t, { url: t.context.place.server.url }).download({ collection: "hard", number, sink });
  t.is(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(10);
}

for (const seed of [1, 2]) {
  test.serial(`connections cut at seeded points cost the segments under way at most (seed ${seed})`, async (t) => {
    const random = new Random(String(seed));
    const bytes = ciphertext(100 * MIB);
    const proxy = await proxied(t);
    const arm = (): void => {
      const after = random.int(0, 30 * MIB);
      proxy.behave(random.chance(0.5) ? cutAfter(after) : truncateAfter(after));
    };
    const cuts = () => proxy.fired("cut") + proxy.fired("truncate");
    arm();
    let seen = 0;
    const result = await clientFor(t, { url: proxy.url }).upload({
      collection: "hard",
      source: chunked(bytes, 65_536),
      encryption: none,
      parallel: PARALLEL,
      onProgress: () => {
        if (cuts() === seen || seen >= 5) return;
        seen = cuts();
        arm();
      },
    });
    await assertStored(t, result.version.number, bytes);
    const resent = Number(result.sentBytes - result.version.sizeBytes);
    t.true(cuts() >= 2);
    t.true(resent <= cuts() * PARALLEL * SEGMENT, `${resent} bytes resent for ${cuts()} cuts`);
    t.log(`${cuts()} cuts, ${(resent / cuts() / MIB).toFixed(1)} MiB resent for each`);
  });
}

test.serial("a server killed and restarted; the source goes on meanwhile, into a file that nobody sees", async (t) => {
  const bytes = ciphertext(120 * MIB);
  const proxy = await proxied(t);
  const spool = join(t.context.place.dir, "spool");
  await mkdir(spool);
  let last: UploadProgress | undefined;
  let killed: Promise<unknown> | undefined;
  const uploading = clientFor(t, { url: proxy.url }).upload({
    collection: "hard",
    source: chunked(bytes, 65_536),
    encryption: none,
    parallel: PARALLEL,
    memoryLimit: 3 * SEGMENT,
    spoolLimit: 1024 * MIB,
    spoolDirectory: spool,
    onProgress: (progress) => {
      last = progress;
      if (progress.acknowledgedBytes > 0n) killed ??= t.context.place.server.end("SIGKILL");
    },
  });
  await until(() => killed !== undefined);
  await killed;
  // Whatever the server missed, the source is read to its end.
  await until(() => last!.sourceBytes === BigInt(bytes.length));
  t.true(last!.acknowledgedBytes < BigInt(bytes.length) - BigInt(3 * SEGMENT));
  if (process.platform === "linux") await assertHidden(t, spool);
  t.deepEqual(await readdir(spool), []);
  const before = last!.acknowledgedBytes;
  t.context.place.server = await startServerProcess(["--data", join(t.context.place.dir, "data")]);
  const listening = performance.now();
  await until(() => last!.acknowledgedBytes > before);
  t.log(`went on ${Math.round(performance.now() - listening)} ms after the server listened again`);
  const result = await uploading;
  t.true(result.mostSpooledBytes > 0n);
  await assertStored(t, result.version.number, bytes);
  t.true(Number(result.sentBytes - result.version.sizeBytes) <= 2 * PARALLEL * SEGMENT);
});

/** The file is open, deleted, and of mode 0600. */
async function assertHidden(t: ExecutionContext<{ place: Place }>, folder: string): Promise<void> {
  const found: string[] = [];
  for (const fd of await readdir("/proc/self/fd")) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => "");
    if (!target.startsWith(folder)) continue;
    found.push(target);
    t.is((await stat(`/proc/self/fd/${fd}`)).mode & 0o777, 0o600);
  }
  t.is(found.length, 1);
  t.regex(found[0]!, /\(deleted\)$/);
}

test.serial("of two addresses one dies in the middle of an upload and of a download", async (t) => {
  const bytes = ciphertext(80 * MIB);
  const [one, other] = [await proxied(t), await proxied(t)];
  const dead = refuse();
  const delays: number[] = [];
  const onRetry = ({ delayMs }: { delayMs: number }): void => void delays.push(delayMs);
  const client = clientFor(t, { urls: [one.url, other.url], onRetry });
  const result = await client.upload({
    collection: "hard",
    source: chunked(bytes, 65_536),
    encryption: none,
    onProgress: ({ acknowledgedBytes }) => {
      if (acknowledgedBytes === 0n) t.is(other.connections, 0, "the first is used while it is well");
      else if (acknowledgedBytes < 40n * BigInt(MIB)) one.behave(dead);
    },
  });
  await assertStored(t, result.version.number, bytes);
  t.true(delays.length > 0);
  t.true(
    delays.every((delay) => delay === 0),
    "the other address is tried at once",
  );
  one.heal();
  const hash = createHash("sha256");
  let received = 0;
  const before = other.connections;
  const download = await clientFor(t, { urls: [one.url, other.url] }).download({
    collection: "hard",
    number: result.version.number,
    sink: (chunk) => {
      hash.update(chunk);
      received += chunk.length;
      if (received > 30 * MIB) one.behave(dead);
    },
  });
  t.is(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
  t.is(download.resumes, 1);
  t.true(other.connections > before);
  // Calls of the generated clients find the way, too.
  const shared = clientFor(t, { urls: [one.url, other.url] });
  t.is((await shared.sessions.whoAmI({})).session?.user, "admin");
});

test.serial("a silent connection is noticed, with another address and without", async (t) => {
  const bytes = ciphertext(60 * MIB);
  const timings = { pingIntervalMs: 300, pingTimeoutMs: 700 };
  for (const alone of [false, true]) {
    const [one, other] = [await proxied(t), await proxied(t)];
    let stalled = false;
    const client = clientFor(
      t,
      {
        urls: alone ? [one.url] : [one.url, other.url],
        onRetry: () => {
          if (alone) one.heal();
        },
      },
      timings,
    );
    const result = await client.upload({
      collection: "hard",
      source: chunked(bytes, 65_536),
      encryption: none,
      onProgress: ({ acknowledgedBytes }) => {
        if (acknowledgedBytes === 0n || stalled) return;
        stalled = true;
        one.behave(stall());
      },
    });
    t.true(stalled);
    t.true(result.resumes > 0);
    await assertStored(t, result.version.number, bytes);
  }
});

test.serial("a slow line is not taken for a dead one", async (t) => {
  const bytes = ciphertext(20 * MIB);
  const proxy = await proxied(t);
  proxy.behave(slow(6 * MIB));
  const result = await clientFor(t, { url: proxy.url }).upload({
    collection: "hard",
    source: chunked(bytes, 65_536),
    encryption: none,
  });
  t.is(result.resumes, 0);
  t.is(result.sentBytes, result.version.sizeBytes);
  await assertStored(t, result.version.number, bytes);
});

test.serial("answers lost after the effect: one upload, no segment twice, one version", async (t) => {
  const bytes = ciphertext(30 * MIB);
  const proxy = await proxied(t);
  const direct = clientFor(t, { url: t.context.place.server.url });
  const uploadsOf = async () => (await direct.uploads.listUploads({ collection: "hard" })).uploads;
  const newest = async () => (await direct.versions.listVersions({ collection: "hard" })).versions[0]?.number ?? 0n;
  const numberBefore = await newest();
  let last: UploadProgress | undefined;
  let ready: () => void = () => undefined;
  const reading = new Promise<void>((resolve) => {
    ready = resolve;
  });
  async function* source(): AsyncGenerator<Uint8Array> {
    // Of the creation, which follows the first bytes.
    proxy.behave(loseAnswers());
    yield bytes.subarray(0, SEGMENT - 1);
    await reading;
    yield bytes.subarray(SEGMENT - 1);
  }
  const uploading = clientFor(t, { url: proxy.url }).upload({
    collection: "hard",
    source: source(),
    encryption: none,
    onProgress: (progress) => {
      last = progress;
    },
    beforeCommit: () => void proxy.behave(loseAnswers()),
  });
  await until(async () => (await uploadsOf()).length === 1);
  const { uploadId } = (await uploadsOf())[0]!;
  proxy.heal();
  await until(() => last !== undefined && last.uploadId !== "");
  t.is(last!.uploadId, uploadId);
  // Of the segments.
  proxy.behave(loseAnswers());
  ready();
  const { upload } = await direct.uploads.getUpload({ uploadId });
  await until(async () => (await direct.uploads.getUpload({ uploadId })).segments.length === 2);
  t.is(upload!.collection, "hard");
  proxy.heal();
  // Of the commit.
  await until(async () => (await newest()) > numberBefore);
  proxy.heal();
  const result = await uploading;
  t.is(result.version.number, numberBefore + 1n);
  t.is(await newest(), numberBefore + 1n);
  t.is((await uploadsOf()).length, 0);
  t.is(result.sentBytes, result.version.sizeBytes, "nothing that had arrived was sent again");
  await assertStored(t, result.version.number, bytes);
});

test.serial("giving up names the upload and what to do about it", async (t) => {
  const proxy = await proxied(t);
  const client = clientFor(t, { url: proxy.url, giveUpAfterMs: 300 }, { abortTimeoutMs: 100 });
  const error = await t.throwsAsync(
    client.upload({
      collection: "hard",
      source: chunked(ciphertext(40 * MIB), 65_536),
      encryption: none,
      onProgress: ({ acknowledgedBytes }) => acknowledgedBytes > 0n && proxy.behave(refuse()),
    }),
    { name: "UnavailableError", message: /given up; nothing was published by it/ },
  );
  const { uploadId } = error as Error & { uploadId: string };
  t.true(error!.message.includes(uploadId));
  const direct = clientFor(t, { url: t.context.place.server.url });
  const { uploads } = await direct.uploads.listUploads({ collection: "hard" });
  t.deepEqual(
    uploads.map((upload) => [upload.uploadId, upload.user]),
    [[uploadId, "admin"]],
  );
  await direct.uploads.abortUpload({ uploadId });
  t.is((await direct.uploads.listUploads({ collection: "hard" })).uploads.length, 0);
});

test.serial("a file for segments that cannot be made is reported before anything is begun", async (t) => {
  const client = clientFor(t, { url: t.context.place.server.url });
  await t.throwsAsync(
    client.upload({
      collection: "hard",
      source: chunked(ciphertext(1000)),
      encryption: none,
      spoolLimit: 1,
      spoolDirectory: "/nowhere/at/all",
    }),
    { name: "SpoolError", message: /\/nowhere\/at\/all.*--spool-dir/ },
  );
  t.is((await client.uploads.listUploads({ collection: "hard" })).uploads.length, 0);
});

test.serial("a frozen server is left for the other address long before it would be taken for dead", async (t) => {
  const [frozen, other] = [await proxied(t), await proxied(t)];
  const bytes = ciphertext(2 * SEGMENT + 1000);
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, SEGMENT);
    // From here on it takes bytes, and nothing comes back.
    frozen.behave(stall());
    yield bytes.subarray(SEGMENT);
  }
  const patient = 10 * 60_000;
  const client = clientFor(
    t,
    { urls: [frozen.url, other.url] },
    {
      pingIntervalMs: patient,
      pingTimeoutMs: patient,
      stallMs: patient,
      acknowledgeMs: patient,
      elsewhere: { connectMs: 60_000, pingIntervalMs: 100, pingTimeoutMs: 400 },
    },
  );
  const { version } = await client.upload({ collection: "hard", source: source(), encryption: none });
  await assertStored(t, version.number, bytes);
});
