/** Sessions that were imported from Backup Repository: rows with nothing but hashes, and the tokens that know more. */

import { createHash, createSecretKey } from "node:crypto";
import anyTest from "ava";
import { sql } from "drizzle-orm";
import { type JWTPayload, SignJWT } from "jose";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { whoAmI } from "../src/app/sessions/manage-sessions.ts";
import { type AuthenticationDeps, authenticate } from "../src/app/sessions/sessions.ts";
import { mayDo } from "../src/domain/access.ts";
import { DomainError } from "../src/domain/errors.ts";
import { onEachDatabase, openDatabase } from "./support/databases.ts";
import { collection, user } from "./support/harness.ts";

const SECRET = Buffer.from("theirs");
const NOW = new Date("2026-01-01T00:00:00Z");
const END = new Date("2026-01-02T00:00:00Z");
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

const objects = [{ type: "collection" as const, name: "pg", roles: ["backupUploader" as const] }];
const ann = user("ann", {
  passwordHash: "hash",
  accessKeys: [{ name: "cron", passwordHash: "hash", objects }],
});
const pg = collection("pg", { accessControl: [{ userName: "ann", roles: ["collectionManager"] }] });
const config = {
  current: () => ({
    users: new Map([["ann", ann]]),
    collections: new Map([["pg", pg]]),
    organizations: new Map(),
  }),
};

let database: SqlDatabase;
const test = onEachDatabase(anyTest, {
  open: async (kind) => await openDatabase(kind, () => NOW),
  use: async (_t, of) => {
    database = of;
    await database.query(sql`delete from sessions`);
  },
  close: async (of) => await of.close(),
});

async function deps(oldSecret: Uint8Array | undefined): Promise<AuthenticationDeps> {
  return { database, config, tokens: await JoseSigner.fromDatabase(database, { oldSecret }), sha256 };
}

/** A token as their server made it, with the row that an import makes of its `granted_accesses`. */
async function imported(claims: JWTPayload, row: { userName: string; accessKey: string }): Promise<string> {
  const exp = END.getTime() / 1000;
  const token = await new SignJWT({ accessKeyName: "", exp, login: "ann", operationsScope: "bnVsbA==", ...claims })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(createSecretKey(SECRET));
  const id = sha256(token);
  const chain = { chainId: id, chainBeganAt: NOW, chainEndsAt: END, createdAt: NOW, expiresAt: END, revokedAt: null };
  const rest = { scope: [], description: "Login", address: "", fingerprint: null };
  await database.transaction(async (tx) => await tx.sessions.insert({ id, ...row, ...rest, ...chain }));
  return token;
}

const reason = async (work: Promise<unknown>) =>
  await work.then(
    () => undefined,
    (error: unknown) => (error instanceof DomainError ? error.reason : String(error)),
  );

test("an imported session goes on with its old token, where the old secret was given", async (t) => {
  const token = await imported({}, { userName: "ann", accessKey: "" });
  t.is(await reason(authenticate(await deps(undefined), token, "192.0.2.7")), "SESSION_INVALID", "off by default");
  t.is(await reason(authenticate(await deps(Buffer.from("other")), token, "192.0.2.7")), "SESSION_INVALID");
  const principal = await authenticate(await deps(SECRET), token, "192.0.2.7");
  t.is(principal.user.name, "ann");
  t.true(mayDo(principal, pg, "manage"));
});

test("what the old token is narrowed to holds, though only the token knows it", async (t) => {
  const scope = { elements: [{ type: "collection", name: "pg", roles: ["backupUploader"] }] };
  const operationsScope = Buffer.from(JSON.stringify(scope)).toString("base64");
  const token = await imported({ operationsScope }, { userName: "ann", accessKey: "" });
  const of = await deps(SECRET);
  const principal = await authenticate(of, token, "192.0.2.7");
  t.true(mayDo(principal, pg, "upload"));
  t.false(mayDo(principal, pg, "manage"));
  t.deepEqual((await whoAmI(of, principal)).session.scope, principal.scope);
});

test("a token of another user or access key than its row says is refused", async (t) => {
  const of = await deps(SECRET);
  const cases: [JWTPayload, { userName: string; accessKey: string }, string | undefined][] = [
    [{ accessKeyName: "cron" }, { userName: "ann", accessKey: "cron" }, undefined],
    [{ rand: "1" }, { userName: "ann", accessKey: "cron" }, "SESSION_INVALID"],
    [{ accessKeyName: "cron", rand: "2" }, { userName: "ann", accessKey: "" }, "SESSION_INVALID"],
    [{ login: "root" }, { userName: "ann", accessKey: "" }, "SESSION_INVALID"],
  ];
  for (const [claims, row, expected] of cases)
    t.is(await reason(authenticate(of, await imported(claims, row), "192.0.2.7")), expected, JSON.stringify(claims));
});
