/** Whatever is in the headers of a call, it is refused or known, in bounded time and without another error. */

import { createHash, createSecretKey } from "node:crypto";
import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import test from "ava";
import fc from "fast-check";
import { SignJWT } from "jose";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { Database, SessionRow } from "../src/app/ports/database.ts";
import { authenticateCall } from "../src/calls/authentication.ts";
import type { User } from "../src/domain/configuration.ts";
import { DomainError } from "../src/domain/errors.ts";
import { openMemoryDatabase } from "./support/memory-database.ts";

const SECRET = Buffer.from("0123456789abcdef0123456789abcdef");
const OLD_SECRET = Buffer.from("theirs");
const NOW = new Date("2026-01-01T00:00:00Z");
const END = new Date("2026-01-02T00:00:00Z");

const database = await openMemoryDatabase(() => NOW);
const tokens = await JoseSigner.fromDatabase(database, { secret: SECRET, secretUse: "verify", oldSecret: OLD_SECRET });
const good = await tokens.sign({ subject: "ann", issuedAt: NOW, expiresAt: END });
test.after.always(async () => await database.close());

const ANN = { name: "ann", deactivated: false, restrictByIp: [], roles: [], accessKeys: [], passwordHash: "hash" };
const users = new Map([["ann", ANN as unknown as User]]);

/** Says of every token that its session is valid, so that only the token itself can be what is wrong. */
const everySession = {
  read: async (work: (tx: unknown) => Promise<unknown>) => await work({ now: NOW, sessions: { find: sessionOf } }),
} as unknown as Database;

async function sessionOf(id: string): Promise<SessionRow> {
  const chain = { chainId: id, chainBeganAt: NOW, chainEndsAt: null, createdAt: NOW, expiresAt: END, revokedAt: null };
  return { id, userName: "ann", accessKey: "", scope: [], description: "", address: "", fingerprint: null, ...chain };
}

const deps = {
  database: everySession,
  config: { current: () => ({ users, collections: new Map(), organizations: new Map() }) },
  tokens,
  sha256: (text: string) => createHash("sha256").update(text).digest("hex"),
  monitoringSecretSha256: "00".repeat(32),
};

async function answerTo(headers: Record<string, string>, query = "", who: "session" | "monitoring" = "session") {
  try {
    const header = (name: string) => (Object.hasOwn(headers, name) ? headers[name] : undefined);
    const principal = await authenticateCall(deps, { who }, "192.0.2.7", { header, query });
    return principal === undefined ? "nobody" : "known";
  } catch (error) {
    if (error instanceof DomainError) return error.reason;
    throw error;
  }
}

const json = fc.jsonValue().map((value) => JSON.stringify(value));
const part = fc.oneof(
  fc.string({ maxLength: 300 }),
  fc.base64String({ maxLength: 300 }),
  json.map((text) => Buffer.from(text).toString("base64url")),
  fc.constantFrom(...good.split("."), "", "e30", "bnVsbA"),
);
/** Headers of tokens, with everything that libraries have stumbled over. */
const header = fc.record(
  {
    alg: fc.oneof(fc.constantFrom("HS256", "EdDSA", "none", "RS256", "__proto__", "dir"), fc.jsonValue()),
    kid: fc.oneof(fc.constantFrom("secret", "__proto__", "constructor", "toString"), fc.jsonValue()),
    typ: fc.jsonValue(),
    crit: fc.oneof(fc.array(fc.string()), fc.jsonValue()),
    b64: fc.jsonValue(),
    zip: fc.jsonValue(),
    jwk: fc.jsonValue(),
    jku: fc.webUrl(),
    x5c: fc.array(fc.string()),
  },
  { requiredKeys: [] },
);
const forged = fc
  .tuple(header, fc.jsonValue(), part)
  .map(([head, claims, signature]) =>
    [...[head, claims].map((value) => Buffer.from(JSON.stringify(value)).toString("base64url")), signature].join("."),
  );
const token = fc.oneof(
  fc.string({ maxLength: 5000 }),
  fc.array(part, { maxLength: 6 }).map((parts) => parts.join(".")),
  forged,
  fc.nat(good.length - 1).map((at) => good.slice(0, at)),
  fc
    .tuple(fc.nat(good.length - 1), fc.string({ maxLength: 3 }))
    .map(([at, text]) => good.slice(0, at) + text + good.slice(at + 1)),
);

test("the token that is right is taken", async (t) => {
  t.is(await answerTo({ authorization: `Bearer ${good}` }), "known");
});

test("no header of a call does anything but be refused, unless it is the token", async (t) => {
  const scheme = fc.constantFrom("Bearer ", "bearer ", "Bearer  ", "Basic ", "", "Bearer\t");
  await fc.assert(
    fc.asyncProperty(scheme, token, fc.string(), async (before, text, secret) => {
      // The last letter of a signature has bits that say nothing.
      const isGood = text.slice(0, -1) === good.slice(0, -1);
      const answer = await answerTo({ authorization: before + text, [HEALTH_SECRET_HEADER]: secret });
      if (!isGood) t.true(["AUTHENTICATION_REQUIRED", "SESSION_INVALID"].includes(answer), answer);
    }),
    { numRuns: 2000 },
  );
});

test("claims that are signed rightly, but by no rule of ours, are refused or those of their session", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.constantFrom(SECRET, OLD_SECRET),
      async (claims, secret) => {
        const kid = secret === SECRET ? { kid: "secret" } : {};
        const text = await new SignJWT(claims)
          .setProtectedHeader({ alg: "HS256", ...kid })
          .sign(createSecretKey(secret));
        t.is(
          await answerTo({ authorization: `Bearer ${text}` }),
          text.length > 4096 ? "AUTHENTICATION_REQUIRED" : "SESSION_INVALID",
        );
      },
    ),
    { numRuns: 300 },
  );
});

test("the monitoring secret is not guessed by any text, however long", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.string({ maxLength: 3000 }), fc.string({ maxLength: 3000 }), async (authorization, query) => {
      t.is(await answerTo({ authorization }, query, "monitoring"), "AUTHENTICATION_REQUIRED");
    }),
    { numRuns: 300 },
  );
});

test("a header far beyond any token costs no more than one that is short", async (t) => {
  for (const text of [
    `${"e30.".repeat(1_000_000)}`,
    "a".repeat(5_000_000),
    ` ${" ".repeat(100_000)}x`,
    ".".repeat(100_000),
  ])
    t.is(await answerTo({ authorization: `Bearer ${text}` }), "AUTHENTICATION_REQUIRED");
});
