/** What a login can ask for, sessions of everybody, and signing keys: with the real grpcurl and the real program. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initConfiguration } from "@strongroom/testkit/installation";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";
import { GrpcurlCalls } from "./support/grpcurl.ts";

test("grpcurl: lifetime, scope, all sessions, and another signing key", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-sign-in-"));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "db");
  const server = await startServerProcess([
    ...["--config", config, "--database", "pglite:memory", "--storage", "mem://", "--session-duration-max", "90d"],
  ]);
  t.teardown(async () => {
    await server.end("SIGTERM");
    await rm(folder, { recursive: true, force: true });
  });
  const admin = new GrpcurlCalls(server);
  const login = { username: "admin", password };
  admin.token = (await admin.call(t, "SessionService/Login", login)).token;

  const asked = { ...login, lifetime: "7776000s", description: "backup maker" };
  const scope = [{ type: "OBJECT_TYPE_COLLECTION", name: "db", roles: ["ROLE_BACKUP_UPLOADER"] }];
  const long = await admin.call(t, "SessionService/Login", { ...asked, scope });
  const { createdAt, expiresAt } = long.session;
  t.true(Math.abs(Date.parse(expiresAt) - Date.parse(createdAt) - 7_776_000_000) <= 1000);
  t.is(await admin.refusal("SessionService/Login", { ...login, lifetime: "7776001s" }), "INVALID_REQUEST");
  t.is(await admin.refusal("SessionService/Login", { ...login, lifetime: "59s" }), "INVALID_REQUEST");

  const narrow = new GrpcurlCalls(server);
  narrow.token = long.token;
  t.is(await narrow.refusal("VersionService/DeleteVersion", { collection: "db", number: 1 }), "ACCESS_DENIED");
  t.is(await narrow.refusal("SessionService/ListSessions", { all_users: true }), "ACCESS_DENIED");
  t.is(await narrow.refusal("SessionService/RotateSigningKey"), "ACCESS_DENIED");

  const page = await admin.call(t, "SessionService/ListSessions", { all_users: true, page_size: 1 });
  t.is(page.sessions[0].description, "backup maker");
  const rest = { all_users: true, page_size: 1, page_token: page.nextPageToken };
  t.is((await admin.call(t, "SessionService/ListSessions", rest)).sessions.length, 1);
  t.is((await admin.call(t, "SessionService/ListSessions", { user: "admin" })).sessions.length, 2);

  const { keyId } = await admin.call(t, "SessionService/RotateSigningKey");
  const renewed = (await admin.call(t, "SessionService/Login", login)).token as string;
  t.like(JSON.parse(Buffer.from(renewed.split(".")[0]!, "base64url").toString()), { kid: keyId, alg: "EdDSA" });
  t.is((await narrow.call(t, "SessionService/WhoAmI")).session.description, "backup maker", "nobody is logged out");
});
