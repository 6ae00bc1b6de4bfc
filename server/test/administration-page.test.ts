/** Every block of docs/administration.md runs as it stands there, with the real grpcurl against a real server. */
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { AdminService } from "@strongroom/gen/strongroom/v1/admin_service_pb";
import { OrganizationService } from "@strongroom/gen/strongroom/v1/organization_service_pb";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { hasPeers, requirePeer } from "@strongroom/testkit/peers/programs";
import { run, startServerProcess } from "@strongroom/testkit/processes";
import test, { type ExecutionContext } from "ava";
import { Grpcurl } from "./support/grpcurl.ts";
import { WebhookReceiver } from "./support/webhook-receivers.ts";

const DOCS = fileURLToPath(new URL("../../docs/", import.meta.url));
const LIMITS = "maxBackupsCount: 7, maxOneVersionSize: 100M, maxCollectionSize: 1G";
const ACME = "apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupOrganization\nmetadata: {name: acme}\nspec: {}\n";

const readPage = async () => await readFile(join(DOCS, "administration.md"), "utf8");
const shellOf = (page: string) => [...page.matchAll(/```sh\n([\s\S]+?)```/g)].map((match) => match[1]!);
const blocksOf = (page: string) =>
  [...page.matchAll(/<!-- administration -->\n```sh\n([\s\S]+?)```/g)].map((match) => match[1]!);

async function upload(t: ExecutionContext, admin: Grpcurl, collection: string, size: number): Promise<void> {
  const segments = cutSegments(openpgpMessage(size), size);
  const { index, sha256, bytes } = segments[0]!;
  const created = await admin.call(t, "UploadService/CreateUpload", { collection });
  const upload_id = created.upload.uploadId;
  const header = { upload_id, index, size_bytes: size, sha256: Buffer.from(sha256).toString("base64") };
  const chunk = Buffer.from(bytes).toString("base64");
  await admin.call(t, "UploadService/WriteSegment", { header }, { chunk });
  const composite_sha256 = Buffer.from(compositeOf(segments)).toString("base64");
  await admin.call(t, "UploadService/CommitUpload", { upload_id, size_bytes: size, composite_sha256 });
}

/** grpcurl and jq, which also write their arguments down. Returns their folder and the file. */
async function watchedPrograms(folder: string): Promise<{ bin: string; seen: string }> {
  const [bin, seen] = [join(folder, "bin"), join(folder, "arguments.txt")];
  await mkdir(bin);
  for (const name of ["grpcurl", "jq"]) {
    const script = `#!/bin/bash\nprintf '%s\\n' "$@" >> '${seen}'\nexec '${requirePeer(name)}' "$@"\n`;
    await writeFile(join(bin, name), script, { mode: 0o755 });
  }
  return { bin, seen };
}

test("docs/administration.md: every block, in order", async (t) => {
  t.timeout(300_000);
  if (!hasPeers(t, "grpcurl", "jq", "openssl")) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-administration-"));
  t.teardown(async () => await rm(folder, { recursive: true, force: true }));
  const [config, work] = [join(folder, "config"), join(folder, "work")];
  const password = await initConfiguration(config, "db");
  await mkdir(work);
  await writeFile(join(work, "password.txt"), `${password}\n`, { mode: 0o600 });
  await writeFile(join(config, "default.yaml"), collectionDocument("default", LIMITS));
  await writeFile(join(config, "acme.yaml"), ACME);
  await writeFile(join(config, "acme-shop.yaml"), collectionDocument("acme-shop", `${LIMITS}, organization: acme`));
  const server = await startServerProcess([
    ...["--config", config, "--database", "pglite:memory", "--storage", "mem://"],
    ...["--notify-allow-addresses", "127.0.0.1"],
  ]);
  t.teardown(async () => void (await server.end("SIGTERM")));
  const receiver = await WebhookReceiver.start("ok");
  t.teardown(async () => await receiver.stop());
  const host = new URL(server.url).host;
  const admin = new Grpcurl(["-plaintext"], host);
  admin.token = (await admin.call(t, "SessionService/Login", { username: "admin", password })).token;
  for (let i = 0; i < 6; i++) await upload(t, admin, "default", 1024);
  for (let i = 0; i < 2; i++) await upload(t, admin, "acme-shop", 1024);

  const blocks = blocksOf(await readPage());
  const said = blocks.map((block, i) => `echo '== ${i}'\n${block}`).join("\n");
  const script = `${said}\necho '== end'\n`
    .replaceAll("127.0.0.1:8080", host)
    .replaceAll("https://alerts.example.org/strongroom", receiver.url);
  const { bin, seen } = await watchedPrograms(folder);
  const env = { PATH: `${bin}:${dirname(process.execPath)}:${process.env.PATH}` };
  const outcome = await run("bash", ["-euo", "pipefail", "-c", script], { cwd: work, env });
  const out = outcome.stdout.toString();
  t.is(outcome.code, 0, `${outcome.stderr}\n${out}`);

  const saidBy = (part: RegExp) => out.split(/^== .*$/m)[blocks.findIndex((block) => part.test(block)) + 1]!;
  t.regex(saidBy(/"health": \[/), /^db\tHEALTH_STATUS_FAILED\tage\t/m);
  t.regex(saidBy(/while :/), /^default\tHEALTH_STATUS_OK\t6\t\S+\t1024\tadmin$/m);
  t.regex(saidBy(/dry_run: true/), /^OBJECT_ACTION_CREATED BackupCollection pg-main$/m);
  t.regex(saidBy(/"effective": true/), /maxBackupsCount: 7/);
  t.regex(saidBy(/expected_revision: \$got/), /^\+ {2}maxAge: 24h$/m);
  t.regex(saidBy(/UndeleteVersion/), /^1\t\S+Z$/m);
  t.regex(saidBy(/confirm_removals/), /"default" removes 6 of 6 versions[\s\S]*^\+ {2}maxBackupsCount: 1$/m);
  t.regex(saidBy(/ConfirmPolicy/), /"removes": 6/);
  t.regex(saidBy(/ListKeys/), /"lost": \{\s*"count": 6/);
  t.regex(saidBy(/deactivated false/), /^\+.*deactivated.*true[\s\S]*^\+.*deactivated.*false/m);
  t.regex(saidBy(/CreateAccessKey/), /^\[\{"collection":"default","actions":\["COLLECTION_ACTION_UPLOAD"\]\}\]$/m);
  t.regex(saidBy(/RevokeSessions/), /"sessionCount": \d[\s\S]*^-.*name: alice/m);
  t.regex(saidBy(/ListUsage/), /\tacme\tacme-shop\t2048\t2048\t2$/m);
  t.regex(saidBy(/version_count/), /refused, as it should be[\s\S]*"versionCount": "2"/);
  t.regex(saidBy(/TestNotifier/), /^true$/m);
  t.true(receiver.received.some(({ body }) => JSON.parse(body).event === "test"));
  t.regex(saidBy(/GetServerStatus.*problems/), /"lastSweep"/);
  t.regex(saidBy(/ListAuditEvents/), /\torganization\.purged\tuser:admin\t/);

  const kept = await readdir(work);
  await t.throwsAsync(access(join(work, "on-call.yaml")), { code: "ENOENT" });
  const secrets = await Promise.all(
    kept.filter((name) => name.endsWith("password.txt")).map(async (name) => await readFile(join(work, name), "utf8")),
  );
  t.is(secrets.length, 3);
  const given = await readFile(seen, "utf8");
  for (const secret of secrets) t.false(given.includes(secret.trim()), "a password is among the arguments");
  t.notRegex(given, /eyJ[\w-]+\.[\w-]+\./, "a token is among the arguments");
});

test("docs/administration.md has every method of AdminService and OrganizationService, and every block is run", async (t) => {
  const page = await readPage();
  const blocks = blocksOf(page);
  t.deepEqual(blocks, shellOf(page));
  const called = new Set(blocks.join("\n").match(/\b\w+Service\/\w+/g));
  for (const service of [AdminService, OrganizationService])
    for (const { name } of service.methods) t.true(called.has(`${service.name}/${name}`), `${service.name}/${name}`);
});

test("no page puts a token among the arguments of a program", async (t) => {
  for (const name of (await readdir(DOCS)).filter((each) => each.endsWith(".md"))) {
    const page = await readFile(join(DOCS, name), "utf8");
    t.notRegex(page, /curl\b[^`]*-H "Authorization: Bearer \$/, name);
  }
});
