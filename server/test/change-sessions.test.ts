/** What a change through the service of administration does to sessions, and how changes wait for each other. */
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import anyTest, { type ExecutionContext, type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { JoseSigner } from "../src/adapters/jose/jose-signer.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { applyObjects, deleteObject } from "../src/app/objects/change-objects.ts";
import { inTurn } from "../src/app/objects/configuration-turn.ts";
import { setPassword } from "../src/app/objects/passwords.ts";
import { getObject } from "../src/app/objects/see-objects.ts";
import { authenticate, type IssuedSession, login } from "../src/app/sessions/sessions.ts";
import { DomainError } from "../src/domain/errors.ts";
import { onEachDatabase, openDatabase } from "./support/databases.ts";
import { principal, user } from "./support/harness.ts";

type Context = { readonly database: SqlDatabase };
const test = onEachDatabase<SqlDatabase, Context>(anyTest as TestFn<Context>, {
  open: async (kind) => await openDatabase(kind, () => new Date()),
  use: async (t, database) => {
    t.context = { database };
    await database.query(sql`delete from sessions`);
    await database.query(sql`delete from audit_events`);
  },
  close: async (database) => await database.close(),
});

const API = "apiVersion: backups.riotkit.org/v1alpha1";
const HOME = "192.0.2.7";
const admin = principal(user("root", { roles: ["systemAdmin"] }));
const log = { debug() {}, info() {}, warn() {}, error() {} };
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
/** A hash in the right form, another one for each password. */
const hashOf = (password: string) =>
  `$argon2id$v=19$m=64,t=1,p=4$AAAAAAAAAAAAAAAAAAAAAA$${createHash("sha256").update(password).digest("base64").slice(0, 43)}`;
const person = (name: string, spec: string) =>
  `${API}\nkind: BackupUser\nmetadata: {name: ${name}}\nspec: {email: ${name}@example.org, ${spec}}\n`;
const withKey = (password: string, key: string) =>
  `roles: [], password: "${hashOf(password)}", accessKeys: [{name: k, password: "${hashOf(key)}", objects: []}]`;
const options = { dryRun: false, expectedRevision: "", allowNoAdmin: false, confirmRemovals: 0n };

async function opened(t: ExecutionContext<Context>) {
  const dir = await temporaryFolder(t);
  await writeFile(
    join(dir, "users.yaml"),
    [
      person("root", `roles: [systemAdmin], password: "${hashOf("root")}"`),
      person("ann", withKey("old", "key")),
      person("bob", `roles: [], password: "${hashOf("bob")}"`),
    ].join("---\n"),
  );
  const { database } = t.context;
  const config = await ConfigFilesSource.open(dir, { settle: async () => {} });
  const deps = {
    config,
    database,
    log,
    sha256,
    tokens: await JoseSigner.fromDatabase(database),
    passwords: {
      verify: async (hash: string | undefined, password: string) => hash === hashOf(password),
      hash: async (password: string) => hashOf(password),
    },
    newPassword: () => "made",
    logins: { giveBack: async () => {} },
    sessionMs: 3_600_000,
    sessionLifetimeMs: 86_400_000,
  };
  const enter = async (username: string, password: string) =>
    await login(deps, { username, password, description: "", scope: [], address: HOME });
  const takes = async ({ token }: IssuedSession) =>
    await authenticate(deps, token, HOME).then(
      () => true,
      (error: unknown) => {
        if (error instanceof DomainError) return false;
        throw error;
      },
    );
  return { dir, deps, enter, takes };
}

const ended = async (database: SqlDatabase) =>
  await database.query(
    sql`select actor, details from audit_events where kind = 'sessions.revoked' order by details->>'access_key'`,
  );

test("a user that is deleted, and put back at once as it was, has no session from before", async (t) => {
  const { deps, enter, takes } = await opened(t);
  const [own, key, bobs] = [await enter("ann", "old"), await enter("ann$k", "key"), await enter("bob", "bob")];
  t.true(await takes(own));
  const { document } = await getObject(deps, principal(user("root", { roles: ["systemAdmin"] })), {
    kind: "BackupUser",
    name: "ann",
    effective: false,
    format: "yaml",
  });
  t.regex(document, /<hidden>/);
  await deleteObject(deps, admin, { kind: "BackupUser", name: "ann", ...options });
  t.deepEqual([await takes(own), await takes(key), await takes(bobs)], [false, false, true]);
  await applyObjects(deps, admin, { documents: person("ann", withKey("old", "key")), ...options });
  t.deepEqual([await takes(own), await takes(key), await takes(bobs)], [false, false, true]);
  t.true(await takes(await enter("ann", "old")), "it logs in as a new one");
  const of = (access_key: string) => ({ actor: "user:root", details: { user: "ann", access_key, sessions: "1" } });
  t.deepEqual(await ended(t.context.database), [of(""), of("k")]);
});

test("another password, set or applied, ends at once and for good what the one before opened", async (t) => {
  const { deps, enter, takes } = await opened(t);
  const [own, key] = [await enter("ann", "old"), await enter("ann$k", "key")];
  await setPassword(deps, admin, { username: "ann", password: "new" });
  const young = await enter("ann", "new");
  await applyObjects(deps, admin, { documents: person("ann", withKey("old", "key")), ...options });
  t.deepEqual([await takes(own), await takes(young), await takes(key)], [false, false, true]);
  await applyObjects(deps, admin, { documents: person("ann", withKey("old", "other")), ...options });
  await applyObjects(deps, admin, { documents: person("ann", withKey("old", "key")), ...options });
  t.false(await takes(key));
  const last = await enter("ann", "old");
  const deactivated = person("ann", `deactivated: true, ${withKey("old", "key")}`);
  await applyObjects(deps, admin, { documents: deactivated, ...options });
  t.false(await takes(last));
  await applyObjects(deps, admin, { documents: person("ann", withKey("old", "key")), ...options });
  t.true(await takes(last), "who is deactivated for a while finds the session again");
});

test("changes at the same time wait for each other", async (t) => {
  const { deps } = await opened(t);
  const names = Array.from({ length: 9 }, (_, i) => `new-${i}`);
  await Promise.all(
    names.map(async (name) => await applyObjects(deps, admin, { documents: person(name, "roles: []"), ...options })),
  );
  for (const name of names) t.true(deps.config.current().users.has(name), name);
});

test("a change waits for another server's, and no longer than it may", async (t) => {
  const { database } = t.context;
  const held = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  // As another server: not by the queue of this one.
  const other = database.exclusively("configuration", async () => {
    begun.resolve();
    await held.promise;
  });
  await begun.promise;
  t.is(await inTurn(database, async () => "done", 0), undefined);
  const waiting = inTurn(database, async () => "done");
  const queued = inTurn(database, async () => "overtaken", 20);
  t.is(await queued, undefined, "nor for those of the same server");
  held.resolve();
  await other;
  t.deepEqual(await waiting, { result: "done" });
  t.deepEqual(await inTurn(database, async () => "after"), { result: "after" });
  await t.throwsAsync(
    inTurn(database, async () => {
      await sleep(0);
      throw new Error("failed");
    }),
    { message: "failed" },
  );
  t.deepEqual(await inTurn(database, async () => "again"), { result: "again" });
});
