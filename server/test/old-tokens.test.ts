/** Tokens of Backup Repository, made as its library makes them: claims, no key id, HS256 with its secret. */

import { createSecretKey, randomBytes } from "node:crypto";
import { MAX_TOKEN_LENGTH } from "@strongroom/protocol/limits";
import test from "ava";
import fc from "fast-check";
import { type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import { verifyOldToken } from "../src/adapters/jose/old-tokens.ts";

const SECRET = Buffer.from("a secret of theirs");
const NOW = new Date("2026-01-01T00:00:00Z");
const END = NOW.getTime() / 1000 + 3600;

/** As Go writes bytes into JSON. */
const scopeClaim = (scope: unknown) => Buffer.from(JSON.stringify(scope)).toString("base64");

const CLAIMS = { accessKeyName: "", exp: END, login: "ann", operationsScope: scopeClaim(null), orig_iat: 1, rand: "7" };

async function token(claims: JWTPayload, secret: Uint8Array = SECRET, header = {}): Promise<string> {
  return await new SignJWT({ ...CLAIMS, ...claims })
    .setProtectedHeader({ alg: "HS256", typ: "JWT", ...header })
    .sign(createSecretKey(secret));
}

const verified = async (text: string, now = NOW) => await verifyOldToken(SECRET, text, now);

test("a token of Backup Repository says whose it is, and what it is narrowed to", async (t) => {
  const ann = { userName: "ann", accessKey: "", scope: [], expiresAt: new Date(END * 1000) };
  t.deepEqual(await verified(await token({})), ann);
  t.deepEqual(await verified(await token({ accessKeyName: "cron" })), { ...ann, accessKey: "cron" });
  t.deepEqual(await verified(await token({ operationsScope: scopeClaim({ elements: [] }) })), ann);
  const elements = [
    { type: "collection", name: "pg", roles: ["backupUploader", "backupUploader", "somethingElse"] },
    { type: "user", name: "bob", roles: ["systemAdmin"] },
  ];
  t.deepEqual((await verified(await token({ operationsScope: scopeClaim({ elements }) })))?.scope, [
    { type: "collection", name: "pg", roles: ["backupUploader"] },
    { type: "collection", name: "bob", roles: [] },
  ]);
});

test("expired, forged, changed and unsigned ones are none", async (t) => {
  t.is(await verified(await token({}), new Date(END * 1000)), undefined);
  t.is(await verified(await token({}, randomBytes(32))), undefined);
  const [head, , signature] = (await token({})).split(".");
  const other = Buffer.from(JSON.stringify({ ...CLAIMS, login: "root" })).toString("base64url");
  t.is(await verified(`${head}.${other}.${signature}`), undefined);
  t.is(await verified(new UnsecuredJWT(CLAIMS).encode()), undefined);
  for (const alg of ["HS384", "HS512"]) t.is(await verified(await token({}, randomBytes(64), { alg })), undefined);
  t.is(await verified(`${await token({})}${"x".repeat(MAX_TOKEN_LENGTH)}`), undefined);
  t.is(await verifyOldToken(new Uint8Array(), await token({}), NOW), undefined);
});

test("claims that are missing or of another form are none, and a scope that is not understood gives nothing", async (t) => {
  const wrong: JWTPayload[] = [
    { login: "" },
    { login: 5 },
    { accessKeyName: null },
    { exp: undefined as never },
    { operationsScope: 5 },
    { operationsScope: "no base64!" },
    { operationsScope: Buffer.from("{").toString("base64") },
    { operationsScope: scopeClaim([]) },
    { operationsScope: scopeClaim({ elements: {} }) },
    { operationsScope: scopeClaim({ elements: [null] }) },
    { operationsScope: scopeClaim({ elements: [{ type: "collection", name: "a" }] }) },
    { operationsScope: scopeClaim({ elements: new Array(101).fill({ type: "collection", name: "a", roles: [] }) }) },
    { iss: "strongroom" },
  ];
  for (const claims of wrong) t.is(await verified(await token(claims)), undefined, JSON.stringify(claims).slice(0, 80));
  t.is(await verified(await token({}, SECRET, { kid: "secret" })), undefined);
});

test("they are off by default, and never taken for tokens of this server, nor those for them", async (t) => {
  const secret = Buffer.from("0123456789abcdef0123456789abcdef");
  const old = await token({}, secret);
  const off = JoseSigner.withSecret(secret);
  t.is(await off.verifyOld(old, NOW), undefined);
  t.false(await off.verify(old, NOW), "also where both secrets are the same");
  const on = JoseSigner.withSecret(secret, { oldSecret: secret });
  t.like(await on.verifyOld(old, NOW), { userName: "ann" });
  t.false(await on.verify(old, NOW));
  const own = await on.sign({ subject: "ann", issuedAt: NOW, expiresAt: new Date(END * 1000) });
  t.is(await on.verifyOld(own, NOW), undefined);
});

test("whatever was signed, it is refused or understood, and a scope never gets wider", async (t) => {
  const element = fc.oneof(
    fc.anything(),
    fc.record({
      type: fc.oneof(fc.constant("collection"), fc.string()),
      name: fc.string(),
      roles: fc.oneof(fc.array(fc.oneof(fc.constant("backupUploader"), fc.string()), { maxLength: 9 }), fc.anything()),
    }),
  );
  const scope = fc.oneof(
    fc.array(element, { maxLength: 5 }).map((elements) => ({ elements })),
    fc.jsonValue().map((value) => value as unknown),
  );
  const claims = fc.record({
    login: fc.oneof(fc.string(), fc.jsonValue()),
    accessKeyName: fc.oneof(fc.string(), fc.jsonValue()),
    operationsScope: fc.oneof(
      scope.map((value) => Buffer.from(JSON.stringify(value) ?? "null").toString("base64")),
      fc.string(),
      fc.jsonValue(),
    ),
  });
  await fc.assert(
    fc.asyncProperty(claims, async (given) => {
      const text = await token(given as JWTPayload);
      if (text.length > MAX_TOKEN_LENGTH) return;
      const found = await verified(text);
      if (found === undefined) return;
      const asked = given.operationsScope;
      const parsed = typeof asked === "string" ? JSON.parse(Buffer.from(asked, "base64").toString() || "null") : null;
      const elements = (parsed?.elements ?? []) as unknown[];
      t.is(found.scope.length, elements.length);
      t.is(found.userName, given.login as string);
    }),
    { numRuns: 300 },
  );
});
