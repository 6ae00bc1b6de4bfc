/** Stock clients of others against the real server: grpcurl, buf curl and Python's grpcio, over plaintext and TLS. */

import { execFileSync } from "node:child_process";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { collectionDocument, initConfiguration } from "@strongroom/testkit/installation";
import { Authority } from "@strongroom/testkit/peers/certificates";
import { findPeer, hasPeers, requirePeer } from "@strongroom/testkit/peers/programs";
import { run, type ServerProcess, startServerProcess } from "@strongroom/testkit/processes";
import anyTest, { type TestFn } from "ava";
import { Grpcurl } from "./support/grpcurl.ts";

interface Context {
  folder: string;
  password: string;
  plain: ServerProcess;
  /** Undefined where OpenSSL's program is missing. */
  secure: ServerProcess | undefined;
  ca: string;
}

const test = anyTest as TestFn<Context>;
const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const collection = (name: string) =>
  collectionDocument(name, "maxBackupsCount: 5, maxOneVersionSize: 100M, maxCollectionSize: 1G");

test.before(async (t) => {
  if (!["grpcurl", "python3", "openssl"].some((name) => findPeer(name) !== undefined)) return;
  const folder = await mkdtemp(join(tmpdir(), "strongroom-clients-"));
  const config = join(folder, "config");
  const password = await initConfiguration(config, "db");
  for (const name of ["default", "busy"]) await writeFile(join(config, `${name}.yaml`), collection(name));
  const args = ["--config", config, "--database", "pglite:memory", "--storage", "mem://"];
  const plain = await startServerProcess(args);
  t.context = { folder, password, plain, secure: undefined, ca: "" };
  if (findPeer("openssl") === undefined) return;
  const authority = await Authority.make(folder, "authority");
  const { certificate, key } = await authority.issue("server");
  t.context.ca = authority.certificate;
  t.context.secure = await startServerProcess([...args, "--tls-cert", certificate, "--tls-key", key]);
});
test.after.always(async (t) => {
  await t.context.plain?.end("SIGTERM");
  await t.context.secure?.end("SIGTERM");
  if (t.context.folder !== undefined) await rm(t.context.folder, { recursive: true, force: true });
});

const hostOf = (server: ServerProcess) => new URL(server.url).host;

/** A real message of gpg, not compressible, to a passphrase of the test. */
async function gpgMessage(folder: string, size: number): Promise<Buffer> {
  const home = await mkdtemp(join(folder, "gpg-"));
  const args = ["--batch", "--homedir", home, "--pinentry-mode", "loopback", "--passphrase", "test", "-c", "-o", "-"];
  return execFileSync(requirePeer("gpg"), args, {
    input: randomBytes(size),
    stdio: ["pipe", "pipe", "ignore"],
    maxBuffer: 2 * size + 1024 * 1024,
  });
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest();

for (const kind of ["plaintext", "TLS"] as const) {
  test.serial(
    `grpcurl over ${kind}: list, describe, login, health, errors, and an upload by streamed messages`,
    async (t) => {
      if (!hasPeers(t, "grpcurl", "gpg", ...(kind === "TLS" ? ["openssl"] : []))) return;
      const { plain, secure, ca, password, folder } = t.context;
      const grpcurl =
        kind === "TLS" ? new Grpcurl(["-cacert", ca], hostOf(secure!)) : new Grpcurl(["-plaintext"], hostOf(plain));

      const list = await grpcurl.raw([], ["list"]);
      t.is(list.code, 0, list.stderr);
      for (const service of ["UploadService", "VersionService", "CollectionService", "SessionService"]) {
        t.true(list.stdout.toString().split("\n").includes(`strongroom.v1.${service}`));
      }
      t.regex((await grpcurl.raw([], ["list", "strongroom.v1.UploadService"])).stdout.toString(), /\.CommitUpload$/m);
      const describe = async (symbol: string) => (await grpcurl.raw([], ["describe", symbol])).stdout.toString();
      t.regex(await describe("strongroom.v1.UploadService"), /\/\/ Turns the upload into a version\./);
      t.regex(
        await describe("strongroom.v1.CommitUploadRequest"),
        /\/\/ SHA-256 over the SHA-256 digests of all segments/,
      );
      t.regex(await describe("strongroom.v1.ErrorReason"), /\/\/ .*\n +ERROR_REASON_QUOTA_EXCEEDED = /);
      t.regex(await describe("google.rpc.QuotaFailure"), /message QuotaFailure \{/);
      t.regex((await grpcurl.raw([], ["describe", "strongroom.v1.Nothing"])).stderr, /not found|there is no symbol/i);

      grpcurl.token = (await grpcurl.call(t, "SessionService/Login", { username: "admin", password })).token;
      const upload = (
        await grpcurl.call(t, "UploadService/CreateUpload", { collection: "db", request_id: randomUUID() })
      ).upload;
      const dump = await gpgMessage(folder, 300_000);
      const header = {
        upload_id: upload.uploadId,
        index: 0,
        size_bytes: dump.length,
        sha256: sha256(dump).toString("base64"),
      };
      const chunks = [dump.subarray(0, 100_000), dump.subarray(100_000)].map((c) => ({ chunk: c.toString("base64") }));
      await grpcurl.call(t, "UploadService/WriteSegment", { header }, ...chunks);
      const composite = sha256(sha256(dump)).toString("base64");
      const commit = { upload_id: upload.uploadId, size_bytes: dump.length, composite_sha256: composite };
      const { version } = await grpcurl.call(t, "UploadService/CommitUpload", commit);
      t.is(version.sizeBytes, String(dump.length));
      const { versions } = await grpcurl.call(t, "VersionService/ListVersions", { collection: "db" });
      t.true(versions.some((each: { number: string }) => each.number === version.number));
      const health = await grpcurl.call(t, "CollectionService/GetCollectionHealth", { collection: "db" });
      t.is(health.status, "HEALTH_STATUS_OK");

      const quota = await grpcurl.refused(t, "UploadService/CreateUpload", {
        collection: "db",
        expected_size_bytes: "1125899906842624",
      });
      t.is(quota.code, 8);
      t.is(quota.QuotaFailure.violations[0].subject, "collection");
      t.is(quota.ErrorInfo.reason, "QUOTA_EXCEEDED");
      t.is(quota.ErrorInfo.metadata.limit, "collection");
      const field = await grpcurl.refused(t, "UploadService/CreateUpload", { collection: "" });
      t.is(field.BadRequest.fieldViolations[0].field, "collection");
      t.truthy(field.RequestInfo.requestId);
      await grpcurl.call(t, "UploadService/CreateUpload", { collection: "busy" });
      const busy = await grpcurl.refused(t, "UploadService/CreateUpload", { collection: "busy" });
      t.is(busy.ErrorInfo.reason, "COLLECTION_BUSY");
      t.regex(busy.RetryInfo.retryDelay, /^\d+(\.\d+)?s$/);
    },
  );

  test.serial(`Python's grpcio over ${kind}: login, upload in three calls, download, error details`, async (t) => {
    if (!hasPeers(t, "python-grpc-tools-protoc", "gpg", ...(kind === "TLS" ? ["openssl"] : []))) return;
    const { plain, secure, ca, password, folder } = t.context;
    const generated = join(folder, `python-${kind}`);
    await mkdir(generated);
    const protos = execFileSync("git", ["ls-files", "proto/strongroom", "third_party/google"], { cwd: ROOT });
    const files = protos
      .toString()
      .trim()
      .split("\n")
      .filter((file) => file.endsWith(".proto"));
    const into = ["-Iproto", "-Ithird_party", `--python_out=${generated}`, `--grpc_python_out=${generated}`];
    execFileSync(requirePeer("python-grpc-tools-protoc"), [...into, ...files], { cwd: ROOT });
    const dump = join(folder, `python-${kind}.gpg`);
    await writeFile(dump, await gpgMessage(folder, 17 * 1024 * 1024));
    const script = fileURLToPath(new URL("support/grpc_client.py", import.meta.url));
    const python = join(requirePeer("python-grpc-tools-protoc"), "..", "python3");
    const args = kind === "TLS" ? [hostOf(secure!), generated, dump, ca] : [hostOf(plain), generated, dump];
    const outcome = await run(python, [script, ...args], { input: password });
    t.is(outcome.code, 0, outcome.stderr);
    const { same, quota } = JSON.parse(outcome.stdout.toString());
    t.true(same);
    t.deepEqual(quota, { code: "RESOURCE_EXHAUSTED", reason: "QUOTA_EXCEEDED", subject: "collection" });
  });
}

test.serial("buf curl by reflection, in Connect and gRPC, over plaintext and TLS", async (t) => {
  if (!hasPeers(t, "openssl")) return;
  const { plain, secure, ca, password } = t.context;
  const buf = join(ROOT, "node_modules/.bin/buf");
  const servers: [ServerProcess, string[]][] = [
    [plain, ["--http2-prior-knowledge"]],
    [secure!, ["--cacert", ca]],
  ];
  for (const [server, flags] of servers) {
    const listed = await run(buf, ["curl", ...flags, "--list-methods", server.url]);
    t.is(listed.code, 0, listed.stderr);
    t.regex(listed.stdout.toString(), /^strongroom\.v1\.UploadService\/CommitUpload$/m);
    for (const protocol of ["connect", "grpc"]) {
      const call = ["curl", ...flags, "--protocol", protocol, "-d", "@-"];
      const login = await run(buf, [...call, `${server.url}/strongroom.v1.SessionService/Login`], {
        input: JSON.stringify({ username: "admin", password }),
      });
      t.is(login.code, 0, login.stderr);
      t.truthy(JSON.parse(login.stdout.toString()).token);
    }
  }
});

test.serial("the grpcurl page of the documentation runs as it stands there", async (t) => {
  if (!hasPeers(t, "grpcurl", "gpg", "jq")) return;
  const { plain, password, folder } = t.context;
  const page = await readFile(join(ROOT, "docs/api.md"), "utf8");
  const blocks = [...page.matchAll(/<!-- grpcurl -->\n```sh\n([\s\S]+?)```/g)].map((match) => match[1]!);
  t.true(blocks.length >= 3);
  const work = join(folder, "page");
  await mkdir(work);
  await writeFile(join(work, "dump.gpg"), await gpgMessage(folder, 50_000));
  await writeFile(join(work, "password.txt"), `${password}\n`, { mode: 0o600 });
  const script = blocks.join("\n").replaceAll("127.0.0.1:8080", hostOf(plain));
  const path = `${join(requirePeer("grpcurl"), "..")}:${process.env.PATH}`;
  const outcome = await run("bash", ["-euo", "pipefail", "-c", script], { cwd: work, env: { PATH: path } });
  t.is(outcome.code, 0, outcome.stderr);
  t.regex(outcome.stdout.toString(), /HEALTH_STATUS_OK/);
  t.regex(outcome.stdout.toString(), /VERSION_STATE_REMOVED/);
});
