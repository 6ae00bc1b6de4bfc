/** What passes is waited for while a body becomes a version, since its client cannot send it again. */
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import anyTest, { type TestFn } from "ava";
import { BufferPool } from "../src/app/uploads/buffer-pool.ts";
import { receiveVersion } from "../src/app/uploads/receive-version.ts";
import { DomainError } from "../src/domain/errors.ts";
import { type Harness, harnessTest, MIB, refused } from "./support/harness.ts";

const test = harnessTest(anyTest as TestFn<{ h: Harness }>, { fresh: true });

const PASSING = [
  new DomainError("DATABASE_UNAVAILABLE", "away", { retryAfterMs: 1 }),
  new DomainError("STORE_UNAVAILABLE", "away", { retryAfterMs: 1 }),
  new DomainError("RATE_LIMITED", "places taken", { metadata: { budget: "organization" }, retryAfterMs: 1 }),
  new DomainError("COLLECTION_BUSY", "being committed", { retryAfterMs: 1 }),
];

/** Fails so often with each of these before it goes through. */
function failing(errors: readonly DomainError[], times: number): () => Promise<void> {
  const left = errors.flatMap((error) => Array.from({ length: times }, () => error));
  return async () => {
    const error = left.shift();
    if (error !== undefined) throw error;
  };
}

const input = (collection: string, size: number) => ({
  collection,
  size: undefined,
  body: (async function* () {
    yield openpgpMessage(size);
  })(),
  stands: async () => {},
  confirmed: async () => {},
  signal: new AbortController().signal,
});

test("what passes is waited for, at a segment and at the commit, however often it fails", async (t) => {
  const { h } = t.context;
  h.add({ name: "db" });
  const deps = { ...h.deps, buffers: new BufferPool(4 * MIB) };
  const stands = failing(PASSING, 7);
  const atCommit = failing(PASSING, 7);
  let confirmed = 0;
  const startComparison = { ready: false, require: atCommit };
  const version = await receiveVersion({ ...deps, startComparison }, h.admin, {
    ...input("db", MIB + 5),
    stands,
    confirmed: async () => void confirmed++,
  });
  t.is(version.number, 1n);
  t.is(confirmed, 4 * 7 + 1, "a client that left meanwhile is seen");
});

test("what does not pass ends the upload at once", async (t) => {
  const { h } = t.context;
  h.add({ name: "db" });
  const deps = { ...h.deps, buffers: new BufferPool(4 * MIB) };
  for (const error of [
    new DomainError("SESSION_INVALID", "revoked"),
    new DomainError("RATE_LIMITED", "too many calls", { metadata: { budget: "requests" }, retryAfterMs: 1 }),
    new DomainError("COLLECTION_BUSY", "another upload"),
  ])
    await refused(
      t,
      error.reason,
      receiveVersion(deps, h.admin, { ...input("db", 3000), stands: failing([error], 1) }),
    );
});
