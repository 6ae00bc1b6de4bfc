/** Commands for systemAdmin about keys and organizations, and the id of a token. */

import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import test from "ava";
import { testContext } from "./support/context.ts";
import { at, fakeSdk } from "./support/fake-sdk.ts";

const ENV = { STRONGROOM_URL: "http://127.0.0.1:9", STRONGROOM_TOKEN: "x" };
const now = () => Date.parse("2026-01-01T12:00:00Z");

test("hash-token prints what the server keeps of a token, whatever is around it", async (t) => {
  const id = createHash("sha256").update("a.b.c").digest("hex");
  for (const given of ["a.b.c", "a.b.c\n", "  a.b.c \r\n", "Bearer a.b.c\n", "Authorization: Bearer a.b.c"]) {
    const { run, stdout, stderr } = await testContext(t, { stdin: Readable.from([Buffer.from(given)]), env: ENV, now });
    t.is(await run("hash-token"), 0, stderr.text);
    t.is(stdout.text, `${id}\n`);
    t.false(stderr.text.includes("a.b.c"));
  }
  for (const given of ["", "\n", "two tokens", "a\u0000b"]) {
    const { run, stdout } = await testContext(t, { stdin: Readable.from([Buffer.from(given)]), env: ENV, now });
    t.is(await run("hash-token"), 2, JSON.stringify(given));
    t.is(stdout.text, "");
  }
  const { run } = await testContext(t, { env: ENV, now });
  t.is(await run("hash-token", "a.b.c"), 2, "never an argument");
});

test("rotate-key says which key signs", async (t) => {
  const sdk = fakeSdk({ sessions: { rotateSigningKey: async () => ({ keyId: "k-2" }) } });
  const { run, stderr } = await testContext(t, { sdk: sdk.load, env: ENV, now });
  t.is(await run("rotate-key"), 0, stderr.text);
  t.is(stderr.text, "Tokens are signed with key k-2 from now on.\n");
});

test("an access key is asked for with collections, roles and addresses, and never without the first two", async (t) => {
  const asked: unknown[] = [];
  const createAccessKey = async (request: unknown) => {
    asked.push(request);
    return { username: "alice$ci", password: "shown-once" };
  };
  const sdk = fakeSdk({ admin: { createAccessKey } });
  const { run, stdout, stderr } = await testContext(t, { sdk: sdk.load, env: ENV, now });
  const rights = ["--for-collection", "a", "--for-collection", "b", "--role", "backupUploader"];
  t.is(await run("access-key", "alice", "ci", ...rights, "--only-from", "10.0.0.0/8"), 0, stderr.text);
  t.is(stdout.text, "shown-once\n");
  const { Role } = await sdk.load();
  t.deepEqual(asked, [
    {
      user: "alice",
      accessKey: "ci",
      collections: ["a", "b"],
      roles: [Role.BACKUP_UPLOADER],
      restrictByIp: ["10.0.0.0/8"],
    },
  ]);
  for (const wrong of [[], rights.slice(2, 4), rights.slice(4), [...rights, "--role", "uploader"]])
    t.is(await run("access-key", "alice", "ci", ...wrong), 2, wrong.join(" "));
  t.is(asked.length, 1);
});

test("a password is given on standard input or by a file, never as an argument, and is not printed", async (t) => {
  const asked: unknown[] = [];
  const setPassword = async (request: { username: string; password: string }) => {
    asked.push(request);
    return { username: request.username, password: "" };
  };
  const sdk = fakeSdk({ admin: { setPassword } });
  const stdin = () => Readable.from([Buffer.from("correct horse\r\n")]);
  const place = await testContext(t, { sdk: sdk.load, env: ENV, now, stdin: stdin() });
  t.is(await place.run("set-password", "alice", "--new-password-file", "-"), 0, place.stderr.text);
  t.deepEqual(asked, [{ username: "alice", password: "correct horse" }]);
  t.false(`${place.stdout.text}${place.stderr.text}`.includes("horse"));
  for (const args of [["correct horse"], ["--new-password-file", "/nonexistent"]])
    t.is(await (await testContext(t, { sdk: sdk.load, env: ENV, now })).run("set-password", "alice", ...args), 2);
  const empty = await testContext(t, { sdk: sdk.load, env: ENV, now, stdin: Readable.from([Buffer.from("\n")]) });
  t.is(await empty.run("set-password", "alice", "--new-password-file", "-"), 2, "not one that the server makes");
  t.is(asked.length, 1);
});

const ACME = {
  name: "acme",
  configured: true,
  maxTotalSizeBytes: 0n,
  storedBytes: 1_048_576n,
  reservedBytes: 0n,
  trashBytes: 0n,
  closedAt: at("10:00:00"),
  closedBy: "admin",
  closedReason: "contract has ended",
};

test("organizations lists, closes and opens", async (t) => {
  const asked: unknown[] = [];
  const note = async (request: unknown) => {
    asked.push(request);
    return { organization: ACME };
  };
  const list = async () => ({ organizations: [ACME], nextPageToken: "" });
  const sdk = fakeSdk({
    organizations: { listOrganizations: list, closeOrganization: note, openOrganization: note },
  });
  const { run, stdout, stderr } = await testContext(t, { sdk: sdk.load, env: ENV, now });
  t.is(await run("organizations"), 0, stderr.text);
  t.regex(stdout.text, /acme +1 MiB +0 B .*closed 2026-01-01 10:00 UTC: contract has ended/);
  t.is(await run("organizations", "--close", "acme", "--reason", "over"), 0);
  t.is(await run("organizations", "--open", "acme"), 0);
  t.deepEqual(asked, [{ organization: "acme", reason: "over" }, { organization: "acme" }]);
  t.is(await run("organizations", "--close", "acme"), 2, "without a reason");
  t.is(await run("organizations", "--close", "acme", "--open", "acme", "--reason", "x"), 2);
});

test("purge sends the numbers that were confirmed, and none that could be right without them", async (t) => {
  const asked: { versionCount: bigint; sizeBytes: bigint }[] = [];
  const purgeOrganization = async (request: (typeof asked)[number]) => {
    asked.push(request);
    return { purge: { versionCount: 31n, sizeBytes: 1_048_576n, collections: ["a"] } };
  };
  const sdk = fakeSdk({ organizations: { purgeOrganization } });
  const { run, stderr } = await testContext(t, { sdk: sdk.load, env: ENV, now });
  t.is(await run("purge", "acme", "--confirm", "31/1048576"), 0, stderr.text);
  t.like(asked[0], { organization: "acme", versionCount: 31n, sizeBytes: 1_048_576n });
  await run("purge", "acme");
  t.is(asked[1]?.versionCount, 2n ** 63n - 1n);
  for (const wrong of ["31", "31/", "x/y", "-1/-1"]) t.is(await run("purge", "acme", "--confirm", wrong), 2, wrong);
  t.is(asked.length, 2);
});

test("usage prints days, of one collection or all", async (t) => {
  const asked: unknown[] = [];
  const day = {
    day: "2026-01-01",
    organization: "acme",
    collection: "pg",
    receivedBytes: 2_097_152n,
    storedBytes: 1_048_576n,
  };
  const listUsage = async (request: unknown) => {
    asked.push(request);
    return { days: [{ ...day, versionCount: 1n }], nextPageToken: "" };
  };
  const sdk = fakeSdk({ organizations: { listUsage } });
  const { run, stdout, stderr } = await testContext(t, { sdk: sdk.load, env: ENV, now });
  t.is(await run("usage", "pg", "--organization", "acme", "--from", "2026-01-01"), 0, stderr.text);
  t.like(asked[0], { organization: "acme", collection: "pg", fromDay: "2026-01-01", toDay: "" });
  t.regex(stdout.text, /2026-01-01 +acme +pg +2 MiB +1 MiB +1/);
});
