/** The nginx configuration of docs/security.md, as it stands there but for its TLS, in front of a real server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { SessionService } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { UploadService } from "@strongroom/gen/strongroom/v1/upload_service_pb";
import { compositeOf, cutSegments, openpgpMessage } from "@strongroom/testkit/ciphertext";
import { findPeer, freePort, hasPeers } from "@strongroom/testkit/peers/programs";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { collection, MIB, user } from "./support/harness.ts";
import { bearer, framesOf, LiveServer } from "./support/live-server.ts";

const PAGE = fileURLToPath(new URL("../../docs/security.md", import.meta.url));

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  const open = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  });
  socket.destroy();
  return open;
}

test("nginx as documented carries Connect, gRPC and gRPC-Web, and segments larger than its usual limit", async (t) => {
  if (!hasPeers(t, "nginx")) return;
  const block = /With nginx:\n\n```\n([\s\S]*?)```/.exec(await readFile(PAGE, "utf8"))![1]!;
  const live = await LiveServer.open(
    [user("admin", { roles: ["systemAdmin"], passwordHash: "hash of right" })],
    [collection("db", { maxParallelUploads: 5 })],
  );
  t.teardown(async () => await live.close());
  const dir = await temporaryFolder(t);
  const port = await freePort();
  await mkdir(join(dir, "logs"));
  const site = block
    .replace("listen 443 ssl http2;", `listen 127.0.0.1:${port} http2;`)
    .replaceAll(/^ *ssl_certificate.*\n/gm, "")
    .replaceAll("127.0.0.1:8080", new URL(live.server.url).host);
  t.false(/:8080|443/.test(site));
  const user_ = process.getuid?.() === 0 ? "user root;\n" : "";
  await writeFile(
    join(dir, "nginx.conf"),
    `${user_}daemon off;\npid ${dir}/pid;\nerror_log ${dir}/error.log;\nevents {}\nhttp {\n  access_log off;\n${site}}\n`,
  );
  const nginx = spawn(findPeer("nginx")!, ["-p", dir, "-c", join(dir, "nginx.conf")], { stdio: "ignore" });
  t.teardown(async () => {
    nginx.kill("SIGTERM");
    if (nginx.exitCode === null) await once(nginx, "exit");
  });
  while (nginx.exitCode === null && !(await isOpen(port))) await sleep(50);
  t.is(nginx.exitCode, null, await readFile(join(dir, "error.log"), "utf8").catch(() => ""));

  const baseUrl = `http://127.0.0.1:${port}`;
  const { token } = await live.session("admin");
  const message = openpgpMessage(3 * MIB);
  for (const [name, transport] of [
    ["connect", createConnectTransport({ baseUrl, httpVersion: "2" })],
    ["grpc", createGrpcTransport({ baseUrl })],
    ["grpc-web", createGrpcWebTransport({ baseUrl, httpVersion: "2" })],
  ] as const) {
    const { session } = await createClient(SessionService, transport).whoAmI({}, bearer(token));
    t.is(session?.user, "admin", name);
    const uploads = createClient(UploadService, transport);
    const { upload } = await uploads.createUpload({ collection: "db" }, bearer(token));
    const { uploadId, segmentSizeBytes } = upload!;
    const segments = cutSegments(message, Number(segmentSizeBytes));
    for (const segment of segments) await uploads.writeSegment(framesOf(uploadId, segment), bearer(token));
    const sizeBytes = BigInt(message.length);
    const compositeSha256 = compositeOf(segments);
    const { version } = await uploads.commitUpload({ uploadId, sizeBytes, compositeSha256 }, bearer(token));
    t.is(version?.sizeBytes, sizeBytes, name);
  }
});
