/** curl, as scripts use it against the HTTP API. */
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openpgpMessage } from "@strongroom/testkit/ciphertext";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { run } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { collection, MIB, user } from "./support/harness.ts";
import { bearer, LiveServer } from "./support/live-server.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

test("curl: from a pipe, as a form, as data, slowly, over HTTP/1.1 and HTTP/2", async (t) => {
  if (!hasPeers(t, "curl")) return;
  t.timeout(5 * 60_000);
  const live = await LiveServer.open(
    [user("admin", { roles: ["systemAdmin"], passwordHash: "hash of right" })],
    [collection("db", { maxBackupsCount: 50, maxCollectionSize: BigInt(1000 * MIB) })],
  );
  t.teardown(async () => await live.close());
  const folder = await temporaryFolder(t);
  const message = openpgpMessage(2 * MIB + 11);
  const file = join(folder, "dump.gpg");
  await writeFile(file, message);
  const small = openpgpMessage(300 * 1024);
  const smallFile = join(folder, "small.gpg");
  await writeFile(smallFile, small);
  const { token } = await live.session("admin");
  const path = `${live.server.url}/api/stable/repository/collection/db/version`;
  const curl = async (args: readonly string[], input?: Uint8Array) =>
    await run(findPeer("curl")!, ["-sS", "--fail-with-body", "-H", `Authorization: Bearer ${token}`, ...args], {
      ...(input === undefined ? {} : { input }),
    });

  const ways: readonly [string, readonly string[], Uint8Array, boolean][] = [
    ["-T - from a pipe", ["-X", "POST", "-T", "-"], message, true],
    ["-T", ["-X", "POST", "-T", file], message, false],
    ["-F file=@", ["-F", `file=@${file}`], message, false],
    [
      "-F file=@ and another field",
      ["-F", "comment=daily", "-F", `file=@${file};type=application/pgp-encrypted`],
      message,
      false,
    ],
    ["--data-binary", ["--data-binary", `@${file}`], message, false],
    ["--limit-rate", ["--data-binary", `@${smallFile}`, "--limit-rate", "200K"], small, false],
    ["-F and --limit-rate", ["-F", `file=@${smallFile}`, "--limit-rate", "200K"], small, false],
  ];
  for (const protocol of ["--http1.1", "--http2-prior-knowledge"]) {
    for (const [way, args, sent, piped] of ways) {
      const name = `${way} ${protocol}`;
      const { code, stdout, stderr } = await curl([protocol, ...args, path], piped ? sent : undefined);
      t.is(code, 0, `${name}: ${stderr}${stdout}`);
      const { version } = JSON.parse(stdout.toString()).data;
      t.is(version.filesize, sent.length, name);
      const out = join(folder, "downloaded");
      const got = await curl([protocol, "-o", out, `${path}/v${version.versionNumber}`]);
      t.is(got.code, 0, `${name}: ${got.stderr}`);
      t.is(sha256(await readFile(out)), sha256(sent), name);
      // What was broken off goes on where it was.
      await writeFile(out, sent.subarray(0, 1000));
      const rest = await curl([protocol, "-C", "-", "-o", out, `${path}/latest`]);
      t.is(rest.code, 0, `${name}: ${rest.stderr}`);
      t.is(sha256(await readFile(out)), sha256(sent), name);
    }
    const refused = await curl([protocol, "--data-binary", "no ciphertext", path]);
    t.is(refused.code, 22, protocol);
    t.regex(
      refused.stdout.toString(),
      /cannot upload version\. cannot upload file, cannot copy stream, error: first chunk/,
    );
    const large = await curl([protocol, "-X", "POST", "-T", file, path.replace("/db/", "/none/")]);
    t.is(large.code, 22, `${protocol}: ${large.stderr}`);
    t.regex(large.stdout.toString(), /cannot find specified collection/, protocol);
  }
  const { versions } = await live.clients.versions.listVersions({ collection: "db" }, bearer(token));
  t.is(versions.length, 2 * ways.length);
});
