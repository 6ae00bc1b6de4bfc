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
