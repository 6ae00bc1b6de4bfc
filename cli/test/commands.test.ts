import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import {
  AuthenticationError,
  CollectionAction,
  HealthStatus,
  type LoginOptions,
  NotFoundError,
  ObjectType,
  Role,
  UnavailableError,
} from "@strongroom/client-sdk";
import test from "ava";
import { CredentialStore } from "../src/files/credentials.ts";
import { testContext } from "./support/context.ts";
import { at, collection, fakeSdk, LOGGED_IN, session, version } from "./support/fake-sdk.ts";

const NOW = Date.parse("2026-01-01T05:00:00Z");
const now = () => NOW;

const timezone = "Europe/Warsaw";
const URL = { STRONGROOM_URL: "http://127.0.0.1:9" };

/** Answers a login, and remembers it. */
function loginServer() {
  const asked: LoginOptions[] = [];
  const sdk = fakeSdk({
    login: async (request) => {
      asked.push(request);
      return { token: "the-token", session: session() };
    },
  });
  return { asked, load: sdk.load, opened: sdk.opened };
}

test("login keeps the session, and never shows the token", async (t) => {
  const { load, asked, opened } = loginServer();
  const stdin = Readable.from([Buffer.from("pass word \n")]);
  const { run, context, stdout, stderr } = await testContext(t, { sdk: load, stdin, now });
  t.is(await run("login", "--url", "http://127.0.0.1:9/", "--username", "alice", "--password-stdin"), 0, stderr.text);
  t.like(asked[0], { username: "alice", password: "pass word ", description: "strongroom CLI on test-host" });
  t.is(opened[0]?.token, undefined);
  const store = new CredentialStore(context);
  const kept = { token: "the-token", user: "alice", expiresAt: "2026-01-01T06:00:00.000Z", sessionId: "a".repeat(64) };
  t.deepEqual(await store.read(), { sessions: [{ url: "http://127.0.0.1:9", ...kept }] });
  t.is((await stat(store.file)).mode & 0o777, 0o600);
  t.is(stderr.text, "Logged in to http://127.0.0.1:9 as alice until 2026-01-01 06:00 UTC.\n");
  t.false((stdout.text + stderr.text).includes("the-token"));
});

test("the password: arguments, STRONGROOM_PASSWORD, STRONGROOM_PASSWORD_FILE", async (t) => {
  const used = async (args: string[], env: Record<string, string> = {}) => {
    const { load, asked } = loginServer();
    const stdin = Readable.from([Buffer.from("from stdin")]);
    const { run, dir } = await testContext(t, { sdk: load, stdin, env: { ...URL, ...env }, now });
    await writeFile(join(dir, "file"), "from file\n");
    const code = await run("login", "--username", "a", ...args.map((arg) => arg.replace("DIR", dir)));
    return code === 0 ? asked[0]?.password : code;
  };
  const env = { STRONGROOM_PASSWORD: "from env" };
  t.is(await used(["--password-file", "DIR/file"], env), "from file");
  t.is(await used(["--password-stdin"], env), "from stdin");
  t.is(await used([], env), "from env");
  t.is(await used([], { STRONGROOM_PASSWORD_STDIN: "1" }), "from stdin");
  t.is(await used([]), 2);
  t.is(await used(["--password-stdin", "--password-file", "DIR/file"]), 2);
});

test("on a terminal the password is asked for and not shown", async (t) => {
  const { load, asked } = loginServer();
  const typed = new Readable({ read() {} });
  const modes: boolean[] = [];
  const stdin = Object.assign(typed, { isTTY: true, setRawMode: (on: boolean) => modes.push(on) });
  const { run, stderr } = await testContext(t, { sdk: load, stdin, env: URL, now });
  const running = run("login");
  typed.push("alicf\u007fe\r");
  while (!stderr.text.includes("Password of alice")) await new Promise((resolve) => setTimeout(resolve, 5));
  typed.push("hunterx\u007f2");
  typed.push("\r");
  t.is(await running, 0, stderr.text);
  t.like(asked[0], { username: "alice", password: "hunter2" });
  t.false(stderr.text.includes("hunter"));
  t.deepEqual(modes, [true, false, true, false]);
});

test("Ctrl-C at the prompt is an interruption", async (t) => {
  const stdin = Object.assign(Readable.from([Buffer.from("abc\u0003")]), { isTTY: true });
  const { run } = await testContext(t, { sdk: loginServer().load, stdin, env: URL });
  t.is(await run("login", "--username", "alice"), 130);
});

test("login for a cron job writes the token into a file of its own", async (t) => {
  const { load } = loginServer();
  const { run, dir, context } = await testContext(t, { sdk: load, env: { ...URL, STRONGROOM_PASSWORD: "x" }, now });
  t.is(await run("login", "--username", "a$cron", "--token-file", join(dir, "token")), 0);
  t.is(await readFile(join(dir, "token"), "utf8"), "the-token\n");
  t.is((await stat(join(dir, "token"))).mode & 0o777, 0o600);
  t.deepEqual((await new CredentialStore(context).read()).sessions, []);
});

test("login asks for a life and a scope, which are checked before the password is asked for", async (t) => {
  const { load, asked } = loginServer();
  const { run, stderr } = await testContext(t, { sdk: load, env: { ...URL, STRONGROOM_PASSWORD: "x" }, now });
  const scope = ["--scope", "pg-main=backupUploader,backupDownloader", "--scope", "files=uploadsAnytime"];
  t.is(await run("login", "--username", "a", "--lifetime", "90d", ...scope), 0, stderr.text);
  t.is(asked[0]?.lifetimeMs, 90 * 86_400_000);
  t.deepEqual(asked[0]?.scope, [
    { type: ObjectType.COLLECTION, name: "pg-main", roles: [Role.BACKUP_UPLOADER, Role.BACKUP_DOWNLOADER] },
    { type: ObjectType.COLLECTION, name: "files", roles: [Role.UPLOADS_ANYTIME] },
  ]);
  for (const wrong of ["pg-main", "=backupUploader", "pg-main=", "pg-main=uploader", "pg-main=UNSPECIFIED", "a=1"])
    t.is(await run("login", "--username", "a", "--scope", wrong), 2, wrong);
  t.is(await run("login", "--username", "a", "--scope", "a=backupUploader", "--scope", "a=backupDownloader"), 2);
  t.is(await run("login", "--username", "a", "--lifetime", "0s"), 2);
  t.is(asked.length, 1);
});

test("login warns before a password crosses a network unprotected", async (t) => {
  const { run, stderr } = await testContext(t, { sdk: loginServer().load, env: { STRONGROOM_PASSWORD: "x" }, now });
  await run("login", "--username", "a", "--url", "http://backup.example.org");
  t.true(stderr.text.startsWith("Warning: http://backup.example.org is not encrypted"));
});

const STORED = { url: "http://a", token: "x", user: "alice", expiresAt: "2026-01-01T06:00:00Z", sessionId: "s" };

test("logout ends the session and forgets it, also when the server cannot be notified", async (t) => {
  for (const [failure, code, words] of [
    [undefined, 0, "Logged out"],
    [new AuthenticationError("revoked", { reason: "SESSION_INVALID" }), 0, "had ended already"],
    [new UnavailableError("no route"), 5, "no route"],
  ] as const) {
    const { load } = fakeSdk({
      sessions: {
        revokeSession: async () => {
          if (failure !== undefined) throw failure;
        },
      },
    });
    const { run, context, stderr } = await testContext(t, { sdk: load, now });
    const store = new CredentialStore(context);
    await store.save(STORED);
    t.is(await run("logout"), code);
    t.true(stderr.text.includes(words), stderr.text);
    t.deepEqual((await store.read()).sessions, []);
  }
});

test("logout ends the session that was kept, and renews none near its end", async (t) => {
  const { load, opened } = fakeSdk({
    sessions: {
      refreshSession: async () => t.fail("renewed, the old session would stay valid"),
      revokeSession: async () => t.is(await (opened[0]!.token as () => Promise<string>)(), token),
    },
  });
  const { run, context } = await testContext(t, { sdk: load, now });
  const claims = (fields: object) => Buffer.from(JSON.stringify(fields)).toString("base64url");
  const seconds = now() / 1000;
  const token = `e30.${claims({ iat: seconds - 43_000, exp: seconds + 60 })}.x`;
  const expiresAt = new Date(now() + 60_000).toISOString();
  await new CredentialStore(context).save({ ...STORED, token, expiresAt });
  t.plan(2);
  t.is(await run("logout"), 0);
});

test("whoami", async (t) => {
  const whoAmI = async () => ({
    session: session({ accessKey: "cron" }),
    email: "a@example.org",
    roles: [Role.SYSTEM_ADMIN],
    rights: [
      { collection: "gone", actions: [] },
      { collection: "pg-main", actions: [CollectionAction.UPLOAD, CollectionAction.UPLOAD_ANYTIME] },
    ],
  });
  const { load } = fakeSdk({ sessions: { whoAmI } });
  const text = await testContext(t, { sdk: load, env: LOGGED_IN });
  t.is(await text.run("whoami"), 0);
  t.regex(text.stdout.text, /User: +alice\$cron\n[\s\S]*Roles: +none system-wide: this is an access key\n/);
  t.regex(
    text.stdout.text,
    /May: +gone: nothing .*\n +pg-main: upload, upload-anytime\n[\s\S]*Ends: +2026-01-01 06:00 UTC/,
  );
  const json = await testContext(t, { sdk: load, env: LOGGED_IN });
  t.is(await json.run("whoami", "--json"), 0);
  t.like(JSON.parse(json.stdout.text), {
    user: "alice",
    accessKey: "cron",
    roles: ["systemAdmin"],
    rights: [
      { collection: "gone", actions: [] },
      { collection: "pg-main", actions: ["upload", "upload-anytime"] },
    ],
    expiresAt: "2026-01-01T06:00:00.000Z",
  });
});

test("sessions: all pages, the own one marked; ended by the beginning of an id", async (t) => {
  const ids = ["a".repeat(64), `abc${"0".repeat(61)}`, `abc${"1".repeat(61)}`];
  const revoked: string[] = [];
  const { load } = fakeSdk({
    sessions: {
      listSessions: async ({ pageToken }: { pageToken: string }) =>
        pageToken === ""
          ? { sessions: [session()], nextPageToken: "2" }
          : { sessions: ids.slice(1).map((sessionId) => session({ sessionId })), nextPageToken: "" },
      whoAmI: async () => ({ session: session() }),
      revokeSession: async ({ sessionId }: { sessionId: string }) => revoked.push(sessionId),
    },
  });
  const choices = { sdk: load, env: LOGGED_IN, now };
  const listed = await testContext(t, choices);
  t.is(await listed.run("sessions"), 0, listed.stderr.text);
  t.regex(listed.stdout.text, /^aaaaaaaaaaaa \* +alice +5 h /m);
  t.is(listed.stdout.text.trim().split("\n").length, 4);
  const ended = await testContext(t, choices);
  t.is(await ended.run("sessions", "--revoke", "abc000"), 0);
  t.deepEqual(revoked, [ids[1]]);
  for (const [id, code] of [
    ["abc", 2],
    ["ffffff", 4],
    ["xyz123", 2],
  ] as const) {
    const { run } = await testContext(t, choices);
    t.is(await run("sessions", "--revoke", id), code, id);
  }
  t.is(revoked.length, 1);
});

test("ls: collections, and versions through all pages", async (t) => {
  const { load } = fakeSdk({
    collections: {
      listCollections: async () => ({
        collections: [
          collection(),
          collection({ name: "www", acceptsUploadsNow: false, nextWindowAt: at("22:00:00"), description: "" }),
          // As the server sends it: the limits are gone with the object.
          collection({ name: "old", frozen: true, limits: undefined, encryptionFormats: [], description: "" }),
        ],
        nextPageToken: "",
      }),
    },
    versions: {
      listVersions: async ({ pageToken }: { pageToken: string }) =>
        pageToken === ""
          ? { versions: [version({ held: true, aboveSoftLimit: true, accessKey: "cron" })], nextPageToken: "p2" }
          : {
              versions: [
                version({
                  number: 11n,
                  sizeBytes: 10n,
                  filename: "evil\u001b[2J",
                  contentEncoding: 1,
                  damage: { $typeName: "strongroom.v1.Damage", reason: 1, message: "gone" },
                }),
              ],
              nextPageToken: "",
            },
    },
  });
  const choices = { sdk: load, env: { ...LOGGED_IN, BM_COLLECTION_ID: "ignored" }, now };
  const collections = await testContext(t, choices);
  t.is(await collections.run("ls"), 0);
  t.deepEqual(collections.stdout.text.split("\n"), [
    "COLLECTION  KEEPS  MAX EACH  MAX ALL  ENCRYPTION  UPLOADS                    DESCRIPTION",
    "pg-main         5     1 MiB   10 MiB  openpgp     open                       the main database",
    "www             5     1 MiB   10 MiB  openpgp     from 2026-01-01 22:00 UTC  -",
    "old             -         -        -  -           frozen                     -",
    "",
  ]);
  const versions = await testContext(t, choices);
  t.is(await versions.run("ls", "pg-main"), 0);
  t.deepEqual(versions.stdout.text.split("\n"), [
    "VERSION     SIZE  AGE  VERIFIED  ENCRYPTION  FLAGS                  UPLOADED BY  FILE",
    "     12  1.2 GiB  3 h         -  openpgp     zstd,held,above-limit  alice$cron   pg-main-12.sql.zst.gpg",
    "     11     10 B  3 h         -  openpgp     DAMAGED                alice        evil\u{fffd}[2J",
    "",
  ]);
  const json = await testContext(t, choices);
  t.is(await json.run("ls", "pg-main", "--json"), 0);
  const { versions: reported } = JSON.parse(json.stdout.text) as { versions: Array<{ version: number }> };
  t.deepEqual(
    reported.map((item) => item.version),
    [12, 11],
  );
});

test("a collection that is not there or not to be seen: exit code 4", async (t) => {
  const listVersions = async () => {
    throw new NotFoundError("There is no collection pg-x.", { reason: "COLLECTION_NOT_FOUND" });
  };
  const { run, stderr } = await testContext(t, { sdk: fakeSdk({ versions: { listVersions } }).load, env: LOGGED_IN });
  t.is(await run("ls", "pg-x"), 4);
  t.true(stderr.text.includes("There is no collection pg-x."));
});

test("rm asks on a terminal, and removes only after yes", async (t) => {
  const removed: bigint[] = [];
  const { load } = fakeSdk({
    versions: {
      getVersion: async () => ({ version: version({ number: 7n }) }),
      deleteVersion: async ({ number }: { number: bigint }) => {
        removed.push(number);
        return { version: version({ number, purgeAfter: at("22:00:00"), timezone }) };
      },
    },
  });
  const answer = async (text: string) => {
    const stdin = Readable.from([Buffer.from(text)]);
    const { run, stderr } = await testContext(t, { sdk: load, env: LOGGED_IN, stdin, stdinIsTerminal: true, now });
    return { code: await run("rm", "pg-main", "v7"), text: stderr.text };
  };
  const no = await answer("\r");
  t.is(no.code, 0);
  t.true(no.text.includes("Remove version 7 of pg-main (1.2 GiB, of 2026-01-01 02:00 UTC)? [y/N]"));
  t.deepEqual(removed, []);
  const yes = await answer("y\r");
  const brings = "`strongroom undelete pg-main 7` brings it back until 2026-01-01 23:00 +01:00.\n";
  t.true(yes.text.endsWith(`Removed version 7 of pg-main; ${brings}`), yes.text);
  const { run } = await testContext(t, { sdk: load, env: LOGGED_IN });
  t.is(await run("rm", "pg-main", "8", "--yes"), 0);
  t.deepEqual(removed, [7n, 8n]);
});

test("times of a collection are in its zone", async (t) => {
  const { load } = fakeSdk({
    versions: {
      getVersion: async () => ({
        version: version({
          timezone: "Europe/Warsaw",
          committedAt: at("03:00:00"),
          protectedUntil: at("04:00:00"),
          verifiedAt: at("05:00:00"),
          confirmedAt: at("06:00:00"),
          held: true,
          holdReason: "evidence",
          heldAt: at("07:00:00"),
          damage: { $typeName: "strongroom.v1.Damage", reason: 1, message: "gone", foundAt: at("08:00:00") },
        }),
      }),
    },
    uploads: {
      listUploads: async () => ({
        uploads: [
          {
            uploadId: "0199-upload",
            user: "alice",
            accessKey: "",
            clientMetadata: {},
            begunAt: at("02:00:00"),
            storedBytes: 0n,
            state: 1,
            lapsed: false,
            leaseExpiresAt: at("09:00:00"),
            timezone: "America/New_York",
          },
        ],
        nextPageToken: "",
      }),
    },
  });
  const shown = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  t.is(await shown.run("show", "pg-main"), 0);
  const times = shown.stdout.text.match(/2026-01-01 \d\d:00 [+\d:UTC]+/g);
  t.deepEqual(
    times,
    ["03", "04", "08", "05", "06", "09", "07"].map((hour) => `2026-01-01 ${hour}:00 +01:00`),
  );
  t.regex(shown.stdout.text, /^Time zone: +Europe\/Warsaw$/m);
  const listed = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  t.is(await listed.run("uploads", "pg-main"), 0);
  t.regex(listed.stdout.text, /2026-01-01 04:00 -05:00/);
});

test("rm says of a version that rotation removed that it was removed, and not that it did it", async (t) => {
  const purged = version({ number: 3n, removedAt: at("01:00:00"), purgeAfter: at("02:00:00"), timezone });
  const { load } = fakeSdk({ versions: { deleteVersion: async () => ({ version: purged, alreadyRemoved: true }) } });
  const { run, stderr } = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  t.is(await run("rm", "pg-main", "3", "--yes"), 0);
  t.is(stderr.text, "Version 3 of pg-main was removed before, at 2026-01-01 02:00 +01:00.\n");
  const json = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  t.is(await json.run("rm", "pg-main", "3", "--yes", "--json"), 0);
  t.true((JSON.parse(json.stdout.text) as { alreadyRemoved: boolean }).alreadyRemoved);
});

test("ls --removed lists what can be brought back, undelete does it", async (t) => {
  const asked: unknown[] = [];
  const { load } = fakeSdk({
    versions: {
      listVersions: async (request) => {
        asked.push(request);
        const removed = version({ number: 3n, removedAt: at("03:00:00"), purgeAfter: at("22:00:00"), timezone });
        return { versions: [removed], nextPageToken: "" };
      },
      undeleteVersion: async (request) => {
        asked.push(request);
        return { version: version({ number: 3n, protectedUntil: at("22:30:00"), timezone }) };
      },
    },
  });
  const listed = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  t.is(await listed.run("ls", "pg-main", "--removed"), 0);
  t.deepEqual(listed.stdout.text.split("\n"), [
    "VERSION     SIZE  BEGUN                    REMOVED                  CAN BE BROUGHT BACK UNTIL",
    "      3  1.2 GiB  2026-01-01 03:00 +01:00  2026-01-01 04:00 +01:00  2026-01-01 23:00 +01:00",
    "",
  ]);
  t.is(await listed.run("ls", "--removed"), 2);
  const back = await testContext(t, { sdk: load, env: LOGGED_IN, now });
  t.is(await back.run("undelete", "pg-main", "v3"), 0);
  t.is(back.stderr.text, "Version 3 of pg-main is back; it is protected until 2026-01-01 23:30 +01:00.\n");
  t.is(await back.run("undelete", "pg-main", "latest"), 2);
  t.deepEqual(asked, [
    { collection: "pg-main", pageToken: "", removed: true },
    { collection: "pg-main", number: 3n },
  ]);
});

test("confirm names the version and its size, and takes a number only", async (t) => {
  const asked: unknown[] = [];
  const confirmVersion = async (request: unknown) => {
    asked.push(request);
    return { version: version({ number: 3n, sizeBytes: 216n, confirmedAt: at("05:00:00") }) };
  };
  const { run, stderr, stdout } = await testContext(t, {
    sdk: fakeSdk({ versions: { confirmVersion } }).load,
    env: LOGGED_IN,
    now,
  });
  t.is(await run("confirm", "pg-main", "3"), 0);
  t.is(stderr.text, "Version 3 of pg-main is confirmed with 216 B, and was not smaller than usual.\n");
  t.is(await run("confirm", "pg-main", "latest"), 2);
  t.is(await run("confirm", "pg-main", "3", "--json"), 0);
  t.like(JSON.parse(stdout.text), { version: 3, size: 216, confirmedAt: "2026-01-01T05:00:00.000Z" });
  t.deepEqual(asked, Array(2).fill({ collection: "pg-main", number: 3n }));
});

test("health: exit codes for monitoring, and the secret in place of a session", async (t) => {
  const seen: unknown[] = [];
  const ask = async (status: HealthStatus, args: string[], env: Record<string, string> = LOGGED_IN) => {
    const getCollectionHealth = async (_request: unknown, options: { headers?: Record<string, string> }) => {
      seen.push(options.headers);
      return {
        status,
        checks: [
          { name: "age", status: HealthStatus.OK, message: "fine", advice: "" },
          { name: "window", status, message: "expected one since 02:00", beganAt: at("02:00:00"), advice: "Make one." },
        ],
        newestVersionNumber: 12n,
        newestVersionAt: at("02:00:00"),
        lastFailedUpload: { uploadId: "u", endedAt: at("03:00:00"), reason: "the dump command exited with 1" },
        timezone,
      };
    };
    const { load, opened } = fakeSdk({ collections: { getCollectionHealth } });
    const { run, stdout, dir } = await testContext(t, { sdk: load, env, now });
    await writeFile(join(dir, "secret"), "from file\n");
    const code = await run("health", "pg-main", ...args.map((arg) => arg.replace("DIR", dir)));
    return { code, text: stdout.text, token: opened[0]?.token };
  };
  const { OK, WARNING, FAILED } = HealthStatus;
  t.is((await ask(OK, [])).code, 0);
  t.is((await ask(WARNING, [])).code, 0);
  t.is((await ask(WARNING, ["--fail-on", "warning"])).code, 8);
  t.is((await ask(FAILED, [])).code, 8);
  t.is((await ask(99 as HealthStatus, [])).code, 8, "a status of the future is not taken for well");
  const { text } = await ask(FAILED, []);
  t.regex(text, /Health: +failed\n/);
  t.regex(text, /Newest version: +12, 2026-01-01 03:00 \+01:00 \(3 h\)\n/);
  t.regex(text, /Last failed upload: +2026-01-01 04:00 \+01:00: the dump command exited with 1\n/);
  t.regex(text, /^window +failed +2026-01-01 03:00 \+01:00 +expected one since 02:00$/m);
  t.true(text.endsWith("\n\nWhat to do:\nwindow:  Make one.\n"), text);
  t.like(JSON.parse((await ask(WARNING, ["--json"])).text), {
    status: "warning",
    newestVersion: 12,
    checks: [{ name: "age" }, { name: "window", since: "2026-01-01T02:00:00.000Z", advice: "Make one." }],
  });
  t.true(seen.every((headers) => headers === undefined));
  seen.length = 0;
  const anonymous = await ask(OK, [], { ...URL, STRONGROOM_HEALTH_SECRET: "from env" });
  t.is(anonymous.code, 0);
  t.is(anonymous.token, undefined);
  await ask(OK, ["--secret-file", "DIR/secret"], { ...URL, STRONGROOM_HEALTH_SECRET: "from env" });
  t.deepEqual(seen, [{ "strongroom-health-secret": "from env" }, { "strongroom-health-secret": "from file" }]);
});

test("health: a wrong secret is named, since the server says of it what it says of no such collection", async (t) => {
  const getCollectionHealth = async () => {
    throw new NotFoundError("there is no collection pg-main", { reason: "COLLECTION_NOT_FOUND", requestId: "r-1" });
  };
  const { load } = fakeSdk({ collections: { getCollectionHealth } });
  const env = { ...URL, STRONGROOM_HEALTH_SECRET: "hunter2" };
  const byVariable = await testContext(t, { sdk: load, env });
  t.is(await byVariable.run("health", "pg-main", "--json"), 4);
  t.like(JSON.parse(byVariable.stdout.text).error, { reason: "COLLECTION_NOT_FOUND", requestId: "r-1", exitCode: 4 });
  t.regex(byVariable.stderr.text, /no collection pg-main, or the health secret from STRONGROOM_HEALTH_SECRET is not/);
  t.false(byVariable.stderr.text.includes("hunter2"));
  const byFile = await testContext(t, { sdk: load, env });
  const file = join(byFile.dir, "secret");
  await writeFile(file, "hunter2\n");
  t.is(await byFile.run("health", "pg-main", "--secret-file", file), 4);
  t.true(byFile.stderr.text.includes(`or the health secret from ${file} is not`), byFile.stderr.text);
  const bySession = await testContext(t, { sdk: load, env: LOGGED_IN });
  t.is(await bySession.run("health", "pg-main"), 4);
  t.false(bySession.stderr.text.includes("health secret"));
});

test("a secret file that is too large to be one is not read into memory", async (t) => {
  const { run, dir, stderr } = await testContext(t, { sdk: fakeSdk({}).load, env: URL });
  await mkdir(join(dir, "x"));
  await writeFile(join(dir, "big"), Buffer.alloc((1 << 20) + 1));
  t.is(await run("health", "pg-main", "--secret-file", join(dir, "big")), 2);
  t.true(stderr.text.includes("more than 1 MiB"));
  t.is(await run("health", "pg-main", "--secret-file", "/dev/zero"), 2);
  t.is(await run("health", "pg-main", "--secret-file", join(dir, "x")), 2);
  await writeFile(join(dir, "lines"), "hunter2\nsecond line\n");
  t.is(await run("health", "pg-main", "--secret-file", join(dir, "lines")), 2);
  t.false(stderr.text.includes("hunter2"));
});

test("a change that the storage does not know yet is done, and said aloud, with --quiet too", async (t) => {
  const changed = async () => ({ version: version({ number: 3n, manifestPending: true }) });
  const versions = {
    holdVersion: changed,
    releaseVersion: changed,
    confirmVersion: changed,
    undeleteVersion: changed,
    deleteVersion: changed,
  };
  const sdk = fakeSdk({ versions }).load;
  const commands = [["hold", "--reason", "evidence"], ["release"], ["confirm"], ["undelete"], ["rm", "--yes"]] as const;
  for (const [command, ...options] of commands) {
    const context = await testContext(t, { sdk, env: LOGGED_IN, now });
    t.is(await context.run(command, "pg-main", "3", "--quiet", ...options), 0);
    t.regex(context.stderr.text, /^The storage could not be told yet/, command);
    const json = await testContext(t, { sdk, env: LOGGED_IN, now });
    t.is(await json.run(command, "pg-main", "3", "--json", ...options), 0);
    t.like(JSON.parse(json.stdout.text), { manifestPending: true }, command);
  }
});

test("hold says why and by whom, release ends it; ls and show say what is held", async (t) => {
  const asked: unknown[] = [];
  const held = version({ number: 3n, held: true, holdReason: "evidence", heldBy: "alice", heldAt: at("05:00:00") });
  const versions = {
    holdVersion: async (request: unknown) => {
      asked.push(request);
      return { version: held };
    },
    releaseVersion: async (request: unknown) => {
      asked.push(request);
      return { version: version({ number: 3n }) };
    },
    listVersions: async () => ({ versions: [held, version({ number: 2n })], nextPageToken: "" }),
    getVersion: async (request: unknown) => {
      asked.push(request);
      return { version: held };
    },
  };
  const sdk = fakeSdk({ versions }).load;
  const inContext = async () => await testContext(t, { sdk, env: LOGGED_IN, now });
  const words = await inContext();
  t.is(await words.run("hold", "pg-main", "3"), 2, "without a reason");
  t.is(await words.run("hold", "pg-main", "v3", "--reason", "evidence"), 0);
  t.is(await words.run("release", "pg-main", "3"), 0);
  t.true(words.stderr.text.endsWith("Version 3 of pg-main is held: evidence\nVersion 3 of pg-main is not held.\n"));
  const json = await inContext();
  t.is(await json.run("hold", "pg-main", "3", "--reason", "evidence", "--json"), 0);
  t.like(JSON.parse(json.stdout.text), { held: true, holdReason: "evidence", heldBy: "alice" });
  const list = await inContext();
  t.is(await list.run("ls", "pg-main"), 0);
  t.is(list.stderr.text, "Version 3: evidence (held by alice since 2026-01-01 05:00 UTC).\n");
  const shown = await inContext();
  t.is(await shown.run("show", "pg-main"), 0);
  t.regex(shown.stdout.text, /^Held: +evidence \(held by alice since 2026-01-01 05:00 UTC\)$/m);
  t.is(await shown.run("show", "pg-main", "3", "--json"), 0);
  t.is(await shown.run("show", "pg-main", "latest"), 2);
  t.deepEqual(asked, [
    { collection: "pg-main", number: 3n, reason: "evidence" },
    { collection: "pg-main", number: 3n },
    { collection: "pg-main", number: 3n, reason: "evidence" },
    { collection: "pg-main", which: { case: "newest", value: true } },
    { collection: "pg-main", which: { case: "number", value: 3n } },
  ]);
});

test("keys lists what opens what, and with --lost what would be lost, over all collections", async (t) => {
  const asked: unknown[] = [];
  const none = { count: 0, numbers: [] };
  const listKeys = async (request: { collection: string; lost: readonly string[] }) => {
    asked.push(request);
    const isMain = request.collection === "pg-main";
    return {
      keys: isMain ? [{ recipient: "openpgp:0123456789abcdef", versions: 3, alone: 2, newestVersionNumber: 9n }] : [],
      unknown: isMain ? none : { count: 1, numbers: [4n] },
      lost: isMain && request.lost.length > 0 ? { count: 2, numbers: [9n, 7n] } : none,
      uncertain: none,
    };
  };
  const listCollections = async () => ({
    collections: [collection(), collection({ name: "www" })],
    nextPageToken: "",
  });
  const sdk = fakeSdk({ versions: { listKeys }, collections: { listCollections } }).load;
  const inContext = async () => await testContext(t, { sdk, env: LOGGED_IN, now });
  const one = await inContext();
  t.is(await one.run("keys", "pg-main"), 0);
  t.regex(one.stdout.text, /^pg-main +openpgp:0123456789abcdef +3 +2 +9$/m);
  const all = await inContext();
  t.is(await all.run("keys", "--lost", "0123456789ABCDEF"), 0);
  t.regex(all.stdout.text, /Lost: +2 \(9, 7\)\nCollection: +www\nLost: +no version\nUnknown: +1 \(4\)\n$/);
  const json = await inContext();
  t.is(await json.run("keys", "pg-main", "--json"), 0);
  t.like(JSON.parse(json.stdout.text).collections[0], { collection: "pg-main", keys: [{ versions: 3, alone: 2 }] });
  t.deepEqual(asked, [
    { collection: "pg-main", lost: [] },
    { collection: "pg-main", lost: ["0123456789ABCDEF"] },
    { collection: "www", lost: ["0123456789ABCDEF"] },
    { collection: "pg-main", lost: [] },
  ]);
});

test("confirm-policy names the number that is removed, and takes nothing else", async (t) => {
  const confirmPolicy = async ({ removes }: { removes: number }) => ({ removes, live: 31 });
  const { run, stderr } = await testContext(t, {
    sdk: fakeSdk({ collections: { confirmPolicy } }).load,
    env: LOGGED_IN,
    now,
  });
  t.is(await run("confirm-policy", "pg-main", "23"), 0);
  t.is(stderr.text, "Rotation of pg-main removes 23 of 31 versions, now or in time.\n");
  t.is(await run("confirm-policy", "pg-main", "all"), 2);
});
