import { type AddressInfo, createServer } from "node:net";
import { Readable } from "node:stream";
import { Code, ConnectError } from "@connectrpc/connect";
import test from "ava";
import { StrongroomClient } from "../src/client.ts";
import type { StrongroomError, UnavailableError } from "../src/errors.ts";
import { chunked, ciphertext } from "./support/bytes.ts";
import { clientOf } from "./support/client.ts";
import { FakeServer, MIB, refusal, type ServerOptions } from "./support/server.ts";
import { ask, assertAborted, pause, serve } from "./support/upload.ts";

test("a connection that breaks in the middle of segments costs only those", async (t) => {
  const broken = new Set<number>();
  const server = await serve(t, {
    segmentSize: MIB,
    maxChunkSize: 100_000,
    onSegmentBytes: ({ header, received }) => {
      if ([1, 4].includes(header.index) && received > 500_000 && !broken.has(header.index)) {
        broken.add(header.index);
        server.dropConnections();
      }
    },
  });
  const bytes = ciphertext(6 * MIB);
  const retries: string[] = [];
  const client = clientOf(server, { onRetry: ({ operation }) => retries.push(operation) });
  const result = await client.upload(ask(chunked(bytes)));
  t.is(broken.size, 2);
  t.true(server.versions[0]!.bytes.equals(bytes));
  t.true(result.resumes >= 2);
  t.true(retries.length >= 2);
  t.true(retries.every((operation) => operation === "WriteSegment"));
  t.is(server.connections, 3);
});

test("a server that restarts is waited for", async (t) => {
  const server = await serve(t, { segmentSize: 500_000 });
  const bytes = ciphertext(3 * MIB);
  const { port } = server;
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 2 * MIB);
    await server.stop();
    setTimeout(() => void server.listen(port), 150);
    yield bytes.subarray(2 * MIB);
  }
  await clientOf(server).upload(ask(source()));
  t.true(server.versions[0]!.bytes.equals(bytes));
});

test("UNAVAILABLE is retried, not sooner than the server asks", async (t) => {
  let refused = 0;
  const server = await serve(t, {
    onCall: (method) => {
      if (["CreateUpload", "WriteSegment", "CommitUpload"].includes(method) && server.count(method) === 1) {
        refused += 1;
        throw refusal(Code.Unavailable, "STORE_UNAVAILABLE", { retryAfterMs: 60 });
      }
    },
  });
  const delays: number[] = [];
  const client = clientOf(server, { onRetry: ({ delayMs }) => delays.push(delayMs) });
  await client.upload(ask(chunked(ciphertext(1000))));
  t.is(refused, 3);
  t.is(delays.length, 3);
  t.true(delays.every((delay) => delay >= 60));
  t.is(server.versions.length, 1);
});

test("a lost acknowledgement is cleared up by asking again", async (t) => {
  let lost = 0;
  const server = await serve(t, {
    onSegmentStored: ({ attempt }) => {
      if (attempt === 1) {
        lost += 1;
        server.dropConnections();
      }
    },
  });
  const bytes = ciphertext(3 * MIB);
  await clientOf(server).upload(ask(chunked(bytes), { parallel: 1 }));
  t.is(lost, 4);
  t.true(server.versions[0]!.bytes.equals(bytes));
});

test("a lost answer to create and commit makes neither a second upload nor a second version", async (t) => {
  let dropped = 0;
  const server = await serve(t, {
    onCommitted: () => {
      if (dropped++ === 0) server.dropConnections();
    },
    onCall: (method) => {
      // After the upload exists: the answer to the first creation is lost.
      if (method === "CreateUpload" && server.count(method) === 1) setImmediate(() => server.dropConnections());
    },
  });
  await clientOf(server).upload(ask(chunked(ciphertext(5000))));
  t.is(server.uploads.size, 1);
  t.is(server.versions.length, 1);
  t.is(server.count("CommitUpload"), 2);
});

test("a segment damaged under way is sent again, but not forever", async (t) => {
  let failures = 2;
  const options: ServerOptions = {
    onSegmentBytes: ({ received }) => {
      if (received === 0 && failures-- > 0) throw refusal(Code.InvalidArgument, "SEGMENT_DIGEST_MISMATCH");
    },
  };
  const server = await serve(t, options);
  const result = await clientOf(server).upload(ask(chunked(ciphertext(5000))));
  t.is(result.resumes, 2);
  failures = Number.POSITIVE_INFINITY;
  const error = await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(5000)))), {
    name: "InvalidRequestError",
  });
  t.is((error as UnavailableError).reason, "SEGMENT_DIGEST_MISMATCH");
});

test("while the source is silent the lease is renewed", async (t) => {
  const server = await serve(t, { leaseMs: 60 });
  const bytes = ciphertext(2_000_000);
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 1_500_000);
    while (server.count("RenewUpload") < 3) await pause(5);
    yield bytes.subarray(1_500_000);
  }
  const beforeCommit = async (): Promise<void> => {
    const before = server.count("RenewUpload");
    while (server.count("RenewUpload") < before + 2) await pause(5);
  };
  await clientOf(server).upload(ask(source(), { beforeCommit }));
  t.true(server.versions[0]!.bytes.equals(bytes));
  const renewals = server.count("RenewUpload");
  await pause(100);
  t.is(server.count("RenewUpload"), renewals, "none after the end");
});

test("a lease that cannot be renewed ends the upload although the source is silent", async (t) => {
  const server = await serve(t, {
    leaseMs: 60,
    onCall: (method) => {
      if (method === "RenewUpload") throw refusal(Code.FailedPrecondition, "UPLOAD_NOT_OPEN");
    },
  });
  const silent = new Readable({ read: () => undefined });
  silent.push(ciphertext(100));
  await t.throwsAsync(clientOf(server).upload(ask(silent)), { name: "PolicyRefusedError" });
  t.true(silent.destroyed);
});

test("a server that is away when an upload begins is waited for, and the dump begins when it is there", async (t) => {
  const server = await serve(t);
  const { port } = server;
  await server.stop();
  const bytes = ciphertext(MIB);
  let readAt = 0;
  let retries = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    readAt = retries;
    yield bytes;
  }
  const client = clientOf(server, {
    url: `http://127.0.0.1:${port}`,
    onRetry: ({ begun }) => {
      retries += 1;
      t.false(begun);
      // Far more often than a wrong address was tried once.
      if (retries === 8) void server.listen(port);
    },
  });
  await client.upload(ask(source()));
  t.true(server.versions[0]!.bytes.equals(bytes));
  t.is(readAt, retries, "the dump was not read before the server answered");
});

test("a login waits for its server when it is told how long", async (t) => {
  const server = await serve(t);
  const { port } = server;
  await server.stop();
  const login = { username: "u", password: "secret" };
  await t.throwsAsync(clientOf(server, { url: `http://127.0.0.1:${port}` }).login(login), { name: "UnavailableError" });
  const client = clientOf(server, {
    url: `http://127.0.0.1:${port}`,
    giveUpAfterMs: 60_000,
    onRetry: ({ attempt }) => {
      if (attempt === 5) void server.listen(port);
    },
  });
  t.is((await client.login(login)).token, "token-1");
});

test("a server that stays away is given up in the end, its address is named, and the source is not read", async (t) => {
  const server = await FakeServer.start();
  const { url } = server;
  const client = clientOf(server, { giveUpAfterMs: 100 });
  await server.stop();
  let isRead = false;
  async function* source(): AsyncGenerator<Uint8Array> {
    isRead = true;
    yield ciphertext(10);
  }
  const error = await t.throwsAsync(client.upload(ask(source())), { name: "UnavailableError" });
  t.true(error!.message.includes(url));
  t.false(isRead);
});

test("what is no HTTP server is given up after a few attempts", async (t) => {
  const other = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end("SSH-2.0-OpenSSH_9.2\r\n");
  });
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  t.teardown(() => other.close());
  const client = new StrongroomClient(
    { url: `http://127.0.0.1:${(other.address() as AddressInfo).port}` },
    { retryBaseMs: 1, retryMaxMs: 2 },
  );
  await t.throwsAsync(client.upload(ask(chunked(ciphertext(10)))), {
    name: "UnavailableError",
    message: /speaks neither HTTP\/2 nor HTTP\/1.1/,
  });
});

for (const [reason, code] of [
  ["COLLECTION_NOT_FOUND", Code.NotFound],
  ["ACCESS_DENIED", Code.PermissionDenied],
  ["QUOTA_EXCEEDED", Code.ResourceExhausted],
  ["WINDOW_CLOSED", Code.FailedPrecondition],
  ["VERSION_TOO_SOON", Code.FailedPrecondition],
  ["COLLECTION_BUSY", Code.Aborted],
] as const) {
  test(`what the server would not take (${reason}) is refused before the source is read`, async (t) => {
    let refusals = 0;
    const server = await serve(t, {
      checks: true,
      onCall: (method) => {
        if (method !== "CheckUpload" || refusals >= 3) return;
        refusals += 1;
        throw refusal(code, reason);
      },
    });
    let refusedBefore: number | undefined;
    async function* source(): AsyncGenerator<Uint8Array> {
      refusedBefore = refusals;
      yield ciphertext(MIB);
    }
    const error = await t.throwsAsync(clientOf(server).upload(ask(source())));
    t.is((error as StrongroomError).reason, reason);
    t.is(refusedBefore, undefined);
    t.is(server.count("CreateUpload"), 0);
    if (!["WINDOW_CLOSED", "VERSION_TOO_SOON", "COLLECTION_BUSY"].includes(reason)) return;
    await clientOf(server).upload(ask(source(), { waitMs: 60_000 }));
    t.is(refusedBefore, 3, "waited for before it is read");
    t.is(server.versions.length, 1);
  });
}

for (const reason of ["busy", "window"] as const) {
  test(`an older server that takes no upload yet (${reason}) is waited for before the source is read`, async (t) => {
    let asked = 0;
    const server = await serve(t, {
      collection: () => {
        asked += 1;
        if (asked > 3) return {};
        return reason === "busy" ? { openUploads: 1 } : { acceptsUploadsNow: false };
      },
    });
    let askedBefore = 0;
    async function* source(): AsyncGenerator<Uint8Array> {
      askedBefore = asked;
      yield ciphertext(MIB);
    }
    const waits: string[] = [];
    await clientOf(server).upload(ask(source(), { waitMs: 60_000, onWait: (wait) => waits.push(wait.reason) }));
    t.is(server.versions.length, 1);
    t.is(askedBefore, 4);
    t.deepEqual(waits, [reason]);
  });
}

test("a creation that is refused as busy is repeated while it may be waited, and without waiting it is an error", async (t) => {
  let refusals = 0;
  const server = await serve(t, {
    onCall: (method) => {
      if (method === "CreateUpload" && refusals < 3) {
        refusals += 1;
        throw refusal(Code.Aborted, "COLLECTION_BUSY");
      }
    },
  });
  await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(10)))), { name: "PolicyRefusedError" });
  t.is(refusals, 1);
  await clientOf(server).upload(ask(chunked(ciphertext(10)), { waitMs: 60_000 }));
  t.is(refusals, 3);
  t.is(server.versions.length, 1);
  refusals = -1000;
  await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(10)), { waitMs: 100 })), {
    name: "PolicyRefusedError",
    message: /COLLECTION_BUSY/,
  });
});

test("an open upload whose place another took meanwhile waits for it", async (t) => {
  let refusals = 0;
  const server = await serve(t, {
    onCall: (method) => {
      if (method !== "WriteSegment" || refusals >= 12) return;
      refusals += 1;
      throw refusal(Code.Aborted, "COLLECTION_BUSY");
    },
  });
  await clientOf(server).upload(ask(chunked(ciphertext(10))));
  t.is(refusals, 12);
  t.is(server.versions.length, 1);
});

test("an open upload asks for its place again soon, however long the lease of the other runs", async (t) => {
  const server = await serve(t, {
    onCall: (method) => {
      if (method === "WriteSegment") throw refusal(Code.Aborted, "COLLECTION_BUSY", { retryAfterMs: 900_000 });
    },
  });
  const stop = new AbortController();
  const delays: number[] = [];
  const client = clientOf(server, {
    onRetry: ({ delayMs }) => {
      delays.push(delayMs);
      stop.abort(new Error("seen enough"));
    },
  });
  await t.throwsAsync(client.upload(ask(chunked(ciphertext(10)), { signal: stop.signal })), { message: "seen enough" });
  t.true(delays[0]! >= 30_000 && delays[0]! <= 33_000, String(delays));
});

test("an open upload is given up when nothing succeeds for long, and its id is named", async (t) => {
  const server = await serve(t, {
    onCall: (method) => {
      if (method === "WriteSegment") throw refusal(Code.Unavailable, "STORE_UNAVAILABLE");
    },
  });
  const client = clientOf(server, { giveUpAfterMs: 150 });
  const error = await t.throwsAsync(client.upload(ask(chunked(ciphertext(10)))), { name: "UnavailableError" });
  const [uploadId] = [...server.uploads.keys()];
  t.is((error as UnavailableError).uploadId, uploadId!);
  t.true(error!.message.includes(uploadId!));
  t.is((error as UnavailableError).reason, "STORE_UNAVAILABLE");
  t.false((error as UnavailableError).isUndecided);
  t.true(server.count("WriteSegment") >= 2);
  assertAborted(t, server, /not tried any longer/);
});

test("a commit without a known outcome is not aborted, one that is refused is", async (t) => {
  let code = Code.Unavailable;
  let reason = "DATABASE_UNAVAILABLE";
  const server = await serve(t, {
    onCall: (method) => {
      if (method === "CommitUpload") throw refusal(code, reason);
    },
  });
  const client = clientOf(server, { giveUpAfterMs: 100 });
  const error = await t.throwsAsync(client.upload(ask(chunked(ciphertext(10)))), {
    name: "UnavailableError",
    message: /Whether upload .* became a version is not known/,
  });
  t.true((error as UnavailableError).isUndecided);
  t.is(server.aborted.length, 0);
  code = Code.FailedPrecondition;
  reason = "ROTATION_BLOCKED";
  await t.throwsAsync(client.upload(ask(chunked(ciphertext(10)))), { name: "PolicyRefusedError" });
  t.is(server.aborted.length, 1);
});

test("a refusal to create is not retried", async (t) => {
  for (const [code, reason, name] of [
    [Code.Aborted, "COLLECTION_BUSY", "PolicyRefusedError"],
    [Code.FailedPrecondition, "WINDOW_CLOSED", "PolicyRefusedError"],
    [Code.Unauthenticated, "SESSION_INVALID", "AuthenticationError"],
    [Code.NotFound, "COLLECTION_NOT_FOUND", "NotFoundError"],
  ] as const) {
    const server = await serve(t, {
      onCall: () => {
        throw refusal(code, reason, { retryAfterMs: 5 });
      },
    });
    const silent = new Readable({ read: () => undefined });
    silent.push(ciphertext(10));
    await t.throwsAsync(clientOf(server, { token: () => "x" }).upload(ask(silent)), { name });
    t.is(server.calls.length, 1);
    t.true(silent.destroyed);
  }
});

test("a token that the server refuses while the upload runs is named to its source, which may log in again", async (t) => {
  const bytes = ciphertext(3 * MIB);
  const server = await serve(t, {
    token: "first",
    onCall: (method) => {
      // As when the clock of the server leaps: every session is over.
      if (method === "WriteSegment" && server.options.token === "first") server.options.token = "second";
    },
  });
  const refusals: (string | undefined)[] = [];
  let current = "first";
  const token = (refused?: string) => {
    if (refused !== undefined) refusals.push(refused);
    if (refused === current) current = "second";
    return current;
  };
  await clientOf(server, { token }).upload(ask(chunked(bytes), { parallel: 1 }));
  t.deepEqual(refusals, ["first"]);
  // Also before anything is open.
  server.options.token = "third";
  const next = (refused?: string) => {
    if (refused === current) current = "third";
    return current;
  };
  await clientOf(server, { token: next }).upload(ask(chunked(bytes)));
  t.is(server.versions.length, 2);
});

test("a token that is renewed while the upload runs is used", async (t) => {
  let renewed = false;
  let asked = 0;
  // The first call after the change is still made with the old token.
  const token = () => (renewed && asked++ > 0 ? "second" : "first");
  const server = await serve(t, {
    segmentSize: 500_000,
    token: "first",
    onSegmentStored: ({ header }) => {
      if (header.index === 1) {
        server.options.token = "second";
        renewed = true;
      }
    },
  });
  const bytes = ciphertext(2 * MIB);
  await clientOf(server, { token }).upload(ask(chunked(bytes), { parallel: 1 }));
  t.true(asked > 1, "a call was refused and repeated with the new token");
  t.true(server.versions[0]!.bytes.equals(bytes));
});

test("an attempt that stands still is begun again", async (t) => {
  const held: (() => void)[] = [];
  const server = await serve(t, {
    onSegmentBytes: ({ attempt, header, received }) => {
      // Takes nothing more: the windows fill, and the client's bytes stop.
      if (attempt === 1 && header.index === 0 && received > 0) return new Promise((resolve) => held.push(resolve));
      return undefined;
    },
    onSegmentStored: ({ attempt, header }) => {
      if (attempt === 1 && header.index === 1) return new Promise((resolve) => held.push(resolve));
      return undefined;
    },
    segmentSize: 6 * MIB,
  });
  const bytes = ciphertext(11 * MIB);
  const client = clientOf(server, {}, { stallMs: 300, acknowledgeMs: 400 });
  const result = await client.upload(ask(chunked(bytes)));
  t.true(result.resumes >= 2);
  t.true(server.versions[0]!.bytes.equals(bytes));
  for (const release of held) release();
});

test("a fault of a proxy is retried", async (t) => {
  let faults = 0;
  const server = await serve(t, {
    onCall: (method) => {
      if (method === "WriteSegment" && faults++ < 3) {
        throw new ConnectError("bad gateway", [Code.Internal, Code.Unknown, Code.Canceled][faults - 1]);
      }
    },
  });
  const result = await clientOf(server).upload(ask(chunked(ciphertext(100))));
  t.is(result.resumes, 3);
});

test("a request id of an upload that has ended is refused, and its version is named", async (t) => {
  const server = await serve(t);
  const requestId = "nightly-1";
  await clientOf(server).upload(ask(chunked(ciphertext(100)), { requestId }));
  const [stored] = [...server.uploads.values()];
  stored!.upload.versionNumber = 1n;
  await t.throwsAsync(clientOf(server).upload(ask(chunked(ciphertext(100)), { requestId })), {
    name: "InvalidRequestError",
    message: /became version 1/,
  });
  t.is(server.versions.length, 1);
  t.is(server.aborted.length, 0);
});

test("a server that stops is left at once, and the other one kept to", async (t) => {
  const stopping = await serve(t, {
    onCall: () => {
      throw refusal(Code.Unavailable, "SHUTTING_DOWN", { retryAfterMs: 3_600_000 });
    },
  });
  const other = await serve(t);
  const delays: number[] = [];
  const bytes = ciphertext(3 * MIB);
  const urls = [stopping.url, other.url];
  const client = clientOf(other, { url: stopping.url, urls, onRetry: ({ delayMs }) => delays.push(delayMs) });
  await client.upload(ask(chunked(bytes)));
  t.deepEqual(delays, [0]);
  t.is(stopping.calls.length, 1);
  t.true(other.versions[0]!.bytes.equals(bytes));
  // Short calls are made at the other one without another setting.
  t.is((await client.sessions.whoAmI({})).email, "a@example.org");
  t.is(stopping.calls.length, 2);
});

test("when every address fails the delay counts, and a refusal moves nothing", async (t) => {
  const options: ServerOptions = {
    onCall: () => {
      if (servers[0]!.calls.length + servers[1]!.calls.length < 5) {
        throw refusal(Code.Unavailable, "STORE_UNAVAILABLE", { retryAfterMs: 40 });
      }
    },
  };
  const servers: FakeServer[] = [await serve(t, options), await serve(t, options)];
  const delays: number[] = [];
  const client = clientOf(servers[0]!, {
    urls: servers.map(({ url }) => url),
    onRetry: ({ delayMs }) => delays.push(delayMs),
  });
  await client.upload(ask(chunked(ciphertext(1000))));
  t.is(delays[0], 0);
  t.true(delays.slice(1).every((delay) => delay >= 40));
  const refusing = await serve(t, {
    onCall: () => {
      throw refusal(Code.FailedPrecondition, "WINDOW_CLOSED");
    },
  });
  const idle = await serve(t);
  const firm = clientOf(refusing, { urls: [refusing.url, idle.url] });
  await t.throwsAsync(firm.upload(ask(chunked(ciphertext(10)))), { name: "PolicyRefusedError" });
  t.is(idle.calls.length, 0);
});

test("segments wait in the file while nothing is acknowledged, and come out of it unchanged", async (t) => {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const server = await serve(t, { segmentSize: 100_000, onSegmentBytes: () => held });
  const bytes = ciphertext(2 * MIB);
  let most = 0n;
  const uploading = clientOf(server).upload(
    ask(chunked(bytes), {
      parallel: 2,
      memoryLimit: 1,
      spoolLimit: 700_000,
      onProgress: ({ spooledBytes, sourceBytes }) => {
        if (spooledBytes > most) most = spooledBytes;
        // The file is full: from here on the source waits.
        if (sourceBytes > 800_000n && spooledBytes === 700_000n) release();
      },
    }),
  );
  const result = await uploading;
  t.is(most, 700_000n);
  t.is(result.mostSpooledBytes, 700_000n);
  t.true(server.versions[0]!.bytes.equals(bytes));
});
