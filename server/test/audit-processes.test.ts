/** The audit log as callers read it, and its chain when processes that chain it at once are killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import test from "ava";
import { sql } from "drizzle-orm";
import { makeAuditKey, openAuditKey } from "../src/adapters/audit-key/audit-key.ts";
import { MemoryBlobStore } from "../src/adapters/memory/memory-blob-store.ts";
import { chainEvents } from "../src/app/audit/chain.ts";
import { writeHead } from "../src/app/audit/heads.ts";
import { listAuditEvents } from "../src/app/audit/list-log.ts";
import { verifyDatabase } from "../src/app/audit/read-log.ts";
import { openServer, POSTGRES_PROGRAMS, removeSharedCluster, sharedCluster } from "./support/databases.ts";
import { Harness, principal, refused, user } from "./support/harness.ts";

test.after.always(async () => await removeSharedCluster());

test("processes that chain at once and are killed while they do leave one whole chain", async (t) => {
  if (!hasPeers(t, ...POSTGRES_PROGRAMS)) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-audit-"));
  t.teardown(async () => await rm(folder, { recursive: true }));
  await makeAuditKey(join(folder, "key"));
  const signer = await openAuditKey(join(folder, "key"));
  const url = await (await sharedCluster()).peer.createDatabase("audit_killed");
  const database = await openServer(url);
  const store = new MemoryBlobStore();
  const program = fileURLToPath(new URL("support/audit-chainer.ts", import.meta.url));
  for (let round = 0; round < 3; round++) {
    const children = [1, 2].map(() =>
      spawn(process.execPath, [program, url], { stdio: ["ignore", "pipe", "inherit"] }),
    );
    for (const child of children) await once(child.stdout, "data");
    for (const child of children) {
      child.kill("SIGKILL");
      await once(child, "exit");
      // Whoever is left goes on, and what was signed before must stay true.
      await chainEvents(database);
      await writeHead({ database, store, signer });
    }
  }
  const report = await verifyDatabase({ database, store, keys: signer });
  t.deepEqual(report.problems, []);
  const [row] = await database.query(
    sql`select count(*)::int as rows, count(distinct place)::int as places, max(place)::int as last from audit_events`,
  );
  t.deepEqual([row!.places, row!.last], [row!.rows, row!.rows], "every row has one place, without gaps");
  t.true(Number(row!.rows) >= 6 * 40);
  await database.close();
});

test("events are listed for systemAdmin only, by filters and pages, and say who did what from where", async (t) => {
  const h = await Harness.open();
  t.teardown(async () => await h.deps.database.close());
  const { database } = h.deps;
  const origin = { address: "192.0.2.7", requestId: "r-1" };
  const bob = { ...principal(user("bob", { roles: ["collectionManager"] })), origin };
  const { name } = h.add({ maxParallelUploads: 3 });
  for (let nth = 0; nth < 3; nth++) await h.begin(name, bob);
  const list = async (of: Parameters<typeof listAuditEvents>[2]["of"], before?: bigint, pageSize = 2) =>
    await listAuditEvents({ database }, h.admin, { of, before, pageSize });
  const first = await list({ collectionName: name });
  t.is(first.events.length, 2);
  t.like(first.events[0], { kind: "upload.created", actor: "user:bob", sessionId: bob.sessionId, ...origin });
  const second = await list({ collectionName: name }, first.nextBefore);
  t.is(second.events.length, 1);
  t.is(second.nextBefore, undefined);
  for (const of of [
    { actor: "user:ann" },
    { collectionName: "other" },
    { kind: "version.read" },
    { before: h.clock.now },
    { from: new Date(h.clock.now.getTime() + 1) },
  ])
    t.deepEqual((await list(of)).events, [], JSON.stringify(of));
  t.is((await list({ actor: "user:bob", kind: "upload.created", from: h.clock.now }, undefined, 9)).events.length, 3);
  await refused(t, "ACCESS_DENIED", listAuditEvents({ database }, bob, { of: {}, before: undefined, pageSize: 1 }));
});
