/** Whatever is sent to the HTTP API: no crash, no hang, bounded memory, and an answer of its form. */
import { connect } from "node:net";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import test from "ava";
import fc from "fast-check";
import { CallRefused } from "../src/calls/codes.ts";
import { HTTP_API_ROUTES } from "../src/calls/routes.ts";
import { parseRange } from "../src/transport/http-api/byte-range.ts";
import { boundaryOf, filePart } from "../src/transport/http-api/multipart.ts";
import { findPath } from "../src/transport/http-api/paths.ts";
import { collection, user } from "./support/harness.ts";
import { LiveServer } from "./support/live-server.ts";

/** A body in pieces of these sizes, over and over; counts how far it was read. */
async function* inPieces(body: Uint8Array, sizes: readonly number[], read: { bytes: number }) {
  for (let at = 0, i = 0; at < body.length; i++) {
    const size = sizes.length === 0 ? body.length : sizes[i % sizes.length]!;
    const piece = body.subarray(at, at + size);
    at += piece.length;
    read.bytes = at;
    yield piece;
  }
}

const SIZES = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 5 });

/** Bytes that look like boundaries and ends of lines more often than chance has it. */
const NEAR_BYTES = fc
  .array(fc.oneof(fc.constantFrom("\r\n", "\r", "\n", "--", "--b", "\r\n--", "\r\n--b", "b", "-"), fc.string()), {
    maxLength: 20,
  })
  .map((parts) => Buffer.from(parts.join("")));

test("the file of a form comes out as it was put in, however it is cut", async (t) => {
  await fc.assert(
    fc.asyncProperty(NEAR_BYTES, NEAR_BYTES, SIZES, fc.boolean(), async (file, other, sizes, first) => {
      const boundary = "b0undary";
      const part = (name: string, bytes: Uint8Array) =>
        Buffer.concat([
          Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n`),
          bytes,
          Buffer.from("\r\n"),
        ]);
      const parts = first ? [part("file", file), part("x", other)] : [part("x", other), part("file", file)];
      const body = Buffer.concat([...parts, Buffer.from(`--${boundary}--\r\n`)]);
      const got: Uint8Array[] = [];
      for await (const piece of filePart(inPieces(body, sizes, { bytes: 0 }), boundary)) got.push(piece);
      return Buffer.concat(got).equals(file);
    }),
    { numRuns: 500 },
  );
  t.pass();
});

test("a form that is cut anywhere before its end is refused", async (t) => {
  const file = openpgpMessage(200);
  const body = Buffer.concat([
    Buffer.from('--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'),
    file,
    Buffer.from("\r\n--b--"),
  ]);
  for (let end = 0; end < body.length; end++) {
    const read = async () => {
      for await (const _ of filePart(inPieces(body.subarray(0, end), [7], { bytes: 0 }), "b"));
    };
    await t.throwsAsync(read, { instanceOf: CallRefused }, `cut at ${end}`);
  }
});

test("no form makes more be held than the bound, whatever it is made of", async (t) => {
  await fc.assert(
    fc.asyncProperty(NEAR_BYTES, SIZES, fc.integer({ min: 0, max: 3 }), async (bytes, sizes, kind) => {
      const head = ["", "--b\r\n", '--b\r\nContent-Disposition: form-data; name="file"', "--b\r\nA: "][kind]!;
      const body = Buffer.concat([
        Buffer.from(head),
        ...Array.from({ length: 40 }, () => bytes),
        Buffer.alloc(40_000, "a"),
      ]);
      const read = { bytes: 0 };
      let given = 0;
      try {
        for await (const piece of filePart(inPieces(body, sizes, read), "b")) {
          given += piece.length;
          // What is not given on yet is a boundary at most.
          if (read.bytes - given > 16 * 1024 + 100) return false;
        }
        return false;
      } catch (error) {
        return error instanceof CallRefused;
      }
    }),
    { numRuns: 300 },
  );
  t.pass();
});

test("content types, paths and ranges have an answer whatever they are", (t) => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        const boundary = boundaryOf(`multipart/form-data; boundary=${text}`);
        return boundary !== undefined && boundary.length > 0 && boundary.length <= 200;
      } catch (error) {
        return error instanceof CallRefused;
      }
    }),
  );
  fc.assert(
    fc.property(fc.string(), fc.webPath(), (method, path) => {
      const found = findPath(method, `/api/stable${path}`);
      return found.route === undefined || Object.hasOwn(HTTP_API_ROUTES, found.route);
    }),
  );
  const range = fc.oneof(fc.string(), fc.stringMatching(/^bytes=\d{0,20}-\d{0,20}$/));
  fc.assert(
    fc.property(range, fc.bigInt({ min: 0n, max: 10n ** 15n }), (header, size) => {
      const got = parseRange(header, size);
      if (got === "whole" || got === "none") return true;
      return got.offset >= 0n && got.length > 0n && got.offset + got.length <= size;
    }),
    { numRuns: 1000 },
  );
  t.pass();
});

const REQUEST = fc.record({
  method: fc.constantFrom("GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"),
  path: fc.oneof(
    fc.constantFrom(
      ...["auth/login", "auth/whoami", "auth/token?userName=%00", "auth/logout?sessionId=%ff", "auth/user/%2e%2e"],
      ...["repository/collection/db/version", "repository/collection/db/version/latest"],
      ...[
        "repository/collection/%00/version",
        "repository/collection/db/health?code=%",
        "repository/collection/db/version/v%31",
      ],
    ),
    fc.webPath().map((path) => path.slice(1)),
  ),
  headers: fc.dictionary(
    fc.constantFrom(
      ...["range", "content-type", "content-encoding", "if-range", "x-forwarded-for", "x-request-id", "accept"],
      ...["strongroom-health-secret", "cookie"],
    ),
    fc.oneof(
      fc.stringMatching(/^[\x20-\x7e]{0,60}$/),
      fc.constantFrom("multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "bytes=0-", "gzip"),
    ),
    { maxKeys: 4 },
  ),
  hasToken: fc.boolean(),
  body: fc.oneof(
    NEAR_BYTES,
    fc.json().map((text) => Buffer.from(text)),
    fc.constant(Buffer.from(openpgpMessage(300))),
  ),
});

test("whatever is sent, the server answers in its form, and goes on", async (t) => {
  t.timeout(5 * 60_000);
  const live = await LiveServer.open(
    [user("admin", { roles: ["systemAdmin"], passwordHash: "hash of right" })],
    [collection("db", { maxParallelUploads: 100 })],
  );
  t.teardown(async () => await live.close());
  const { token } = await live.session("admin");
  // The logout of this session would make the rest easy.
  const { host, port } = { host: "127.0.0.1", port: Number(new URL(live.server.url).port) };

  /** Sends a request with nothing between, and reads until the connection ends. */
  const exchange = async (head: string, body: Uint8Array): Promise<string> => {
    const socket = connect(port, host);
    socket.on("error", () => {});
    socket.write(Buffer.concat([Buffer.from(head, "latin1"), body]));
    const pieces: Buffer[] = [];
    for await (const piece of socket) pieces.push(piece as Buffer);
    return Buffer.concat(pieces).toString();
  };
  await fc.assert(
    fc.asyncProperty(REQUEST, async ({ method, path, headers, hasToken, body }) => {
      if (method === "DELETE" && !path.includes("?")) return true;
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
      if (hasToken) lines.push(`Authorization: Bearer ${token}`);
      const length = method === "GET" || method === "HEAD" || method === "OPTIONS" ? 0 : body.length;
      const head = [
        `${method} /api/stable/${path} HTTP/1.1`,
        "Host: x",
        "Connection: close",
        `Content-Length: ${length}`,
      ];
      const answer = await exchange(`${[...head, ...lines].join("\r\n")}\r\n\r\n`, body.subarray(0, length));
      const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);
      t.true(status >= 200 && status < 600, answer.slice(0, 200));
      t.false(/a fault of the server/.test(answer), `${method} ${path}: ${answer}`);
      const [shown = "", text = ""] = answer.split("\r\n\r\n");
      if (method !== "HEAD" && /content-type: application\/json/i.test(shown))
        t.is(typeof JSON.parse(text).status, "boolean");
      return true;
    }),
    { numRuns: 200 },
  );
  t.is((await fetch(`${live.server.url}/health`)).status, 200);
});
