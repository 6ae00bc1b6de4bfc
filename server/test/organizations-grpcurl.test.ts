/** Organizations with the real grpcurl and the real program, and with its commands. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initConfiguration } from "@strongroom/testkit/installation";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";
import { GrpcurlCalls } from "./support/grpcurl.ts";

const ACME = "apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupOrganization\nmetadata: {name: acme}\nspec: {}\n";

test("grpcurl: close, list, purge with its numbers, open, usage", async (t) => {
  if (!hasPeers(t, "grpcurl")) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-organizations-"));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "db");
  await writeFile(join(config, "acme.yaml"), ACME);
  const server = await startServerProcess(["--config", config, "--database", "pglite:memory", "--storage", "mem://"]);
  t.teardown(async () => {
    await server.end("SIGTERM");
    await rm(folder, { recursive: true, force: true });
  });
  const admin = new GrpcurlCalls(server);
  admin.token = (await admin.call(t, "SessionService/Login", { username: "admin", password })).token;
  const organization = "acme";
  const list = async () => (await admin.call(t, "OrganizationService/ListOrganizations")).organizations;
  t.like((await list())[0], { name: "acme", configured: true });
  t.is(await admin.refusal("OrganizationService/PurgeOrganization", { organization }), "PURGE_REFUSED");
  t.is(await admin.refusal("OrganizationService/CloseOrganization", { organization }), "INVALID_REQUEST");
  const closing = { organization, reason: "contract has ended" };
  t.like((await admin.call(t, "OrganizationService/CloseOrganization", closing)).organization, {
    closedBy: "admin",
    closedReason: "contract has ended",
  });
  const wrong = { organization, version_count: 1 };
  t.is(await admin.refusal("OrganizationService/PurgeOrganization", wrong), "PURGE_REFUSED");
  t.is((await admin.call(t, "OrganizationService/PurgeOrganization", { organization })).purge.purgedBy, "admin");
  t.truthy((await list())[0].purge);
  t.is(
    (await admin.call(t, "OrganizationService/OpenOrganization", { organization })).organization.closedAt,
    undefined,
  );
  t.deepEqual(await admin.call(t, "OrganizationService/ListUsage", { organization, from_day: "2026-01-01" }), {});
  for (const from_day of ["yesterday", "2026-02-30"])
    t.is(await admin.refusal("OrganizationService/ListUsage", { from_day }), "INVALID_REQUEST");
  t.is(
    await admin.refusal("OrganizationService/OpenOrganization", { organization: "nobody" }),
    "ORGANIZATION_NOT_FOUND",
  );
});
