/** Both generations of the unchanged Backup Maker, a client in Go, directly and through nginx. */
import { randomBytes } from "node:crypto";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startNginx } from "@strongroom/testkit/peers/nginx";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { run } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { DEFAULT_HTTP_UPLOADS } from "../src/server-options.ts";
import { collection, MIB, user } from "./support/harness.ts";
import { bearer, LiveServer } from "./support/live-server.ts";

const RUNS = 50;
const RUNS_WITH_KEYS = 10;
/** That of 2022 makes a key pair of its own in each of them, which takes seconds. */
const RUNS_WITH_OWN_KEYS = 5;
const AT_ONCE = 5;
/** What is tried, each in a collection of its own: a dump that is whole, and three of commands that fail. */
const CASES = ["good", "failing", "whole", "part"] as const;
const PASSPHRASE = "riotkit";
const EMAIL = "backup@example.org";

/**
 * Directives as docs/security.md has them. Without buffering, nginx does not see the end of a connection that comes with
 * the last bytes of a body.
 */
const PROXY = (url: string) => `client_max_body_size 0; location /api/ {
  proxy_pass ${url}; proxy_http_version 1.1; proxy_request_buffering on; proxy_buffering off; }`;

/**
 * Whether a program of another project is there. One that is in no registry is skipped loudly also under CI, which may
 * have no way to it.
 */
function has(t: ExecutionContext, program: string): boolean {
  if (findPeer(program) !== undefined) return true;
  const message = `SKIPPED: ${t.title}: ${program} not installed; run peers/install.sh`;
  console.error(`!!! ${message}`);
  t.log(message);
  t.pass();
  return false;
}

interface Keys {
  readonly publicKey: string;
  readonly privateKey: string;
  readonly whole: string;
  readonly folder: string;
}

/** A key pair of GnuPG, and a dump that is encrypted to it. */
async function makeKeys(t: ExecutionContext): Promise<Keys> {
  const folder = await temporaryFolder(t);
  const home = join(folder, "gnupg");
  await mkdir(home);
  await chmod(home, 0o700);
  const gpg = async (...args: string[]) => {
    const all = [
      "--homedir",
      home,
      "--batch",
      "--yes",
      "--pinentry-mode",
      "loopback",
      "--passphrase",
      PASSPHRASE,
      ...args,
    ];
    const { code, stdout, stderr } = await run(findPeer("gpg")!, all);
    t.is(code, 0, stderr);
    return stdout;
  };
  t.teardown(async () => void (await run("gpgconf", ["--homedir", home, "--kill", "all"])));
  await gpg("--quick-generate-key", EMAIL, "default", "default", "never");
  const publicKey = join(folder, "public.asc");
  await writeFile(publicKey, await gpg("--armor", "--export", EMAIL));
  const privateKey = join(folder, "private.asc");
  await writeFile(privateKey, await gpg("--armor", "--export-secret-keys", EMAIL), { mode: 0o600 });
  const whole = join(folder, "whole.gpg");
  await writeFile(join(folder, "dump"), randomBytes(3000));
  await gpg(
    "--armor",
    "--trust-model",
    "always",
    "--recipient",
    EMAIL,
    "--output",
    whole,
    "--encrypt",
    join(folder, "dump"),
  );
  return { publicKey, privateKey, whole, folder };
}

for (const year of ["2022", "2023"]) {
  const program = `backup-maker-${year}`;

  test(`Backup Maker of ${year}: make, restore and download; a command that failed is no version`, async (t) => {
    if (!has(t, program) || !hasPeers(t, "gpg", "nginx")) return;
    t.timeout(20 * 60_000);
    const live = await LiveServer.open(
      [user("admin", { roles: ["systemAdmin"] })],
      ["directly", "nginx"].flatMap((way) =>
        CASES.map((name) => collection(`${name}-${way}`, { maxParallelUploads: AT_ONCE + 1 })),
      ),
      { httpUploads: DEFAULT_HTTP_UPLOADS },
    );
    t.teardown(async () => await live.close());
    const { token } = await live.session("admin");
    const nginx = await startNginx({ front: { speaks: "http1", directives: PROXY(live.server.url) } });
    t.teardown(async () => await nginx.remove());
    const keys = await makeKeys(t);
    const maker = async (url: string, name: string, args: readonly string[], variables: Record<string, string> = {}) =>
      await run(findPeer(program)!, args, {
        cwd: keys.folder,
        env: {
          BM_URL: url,
          BM_COLLECTION_ID: name,
          BM_AUTH_TOKEN: token,
          BM_PASSPHRASE: PASSPHRASE,
          BM_HOME: keys.folder,
          ...variables,
        },
      });
    const versions = async (name: string) =>
      (await live.clients.versions.listVersions({ collection: name }, bearer(token))).versions;

    const through = async (way: "directly" | "nginx", url: string) => {
      const [good, ...failing] = CASES.map((name) => `${name}-${way}`);
      const file = (name: string) => join(keys.folder, `${name}-${way}.txt`);
      const dump = randomBytes(2 * MIB).toString("base64");
      await writeFile(file("dump"), dump);
      const recipient = year === "2022" ? ["--recipient", EMAIL] : [];
      const before = (await versions(good!)).length;
      const made = await maker(url, good!, [
        "make",
        "--key",
        keys.publicKey,
        "-c",
        `cat ${file("dump")}`,
        ...recipient,
      ]);
      t.is(made.code, 0, `${way}: ${made.stderr}`);
      t.is((await versions(good!)).length, before + 1, way);

      const restore = ["restore", "--private-key", keys.privateKey, "-c", `cat - > ${file("restored")}`, ...recipient];
      const restored = await maker(url, good!, restore);
      t.is(restored.code, 0, `${way}: ${restored.stderr}`);
      t.true((await readFile(file("restored"), "utf8")) === dump, way);
      const path = file("downloaded");
      const download = ["download", "--private-key", keys.privateKey, "--save-path", path, ...recipient];
      const downloaded = await maker(url, good!, download, { BM_SAVE_PATH: path });
      if (year === "2022") {
        t.is(downloaded.code, 0, `${way}: ${downloaded.stderr}`);
        t.true((await readFile(path, "utf8")) === dump, way);
      } else {
        // It forgets its --save-path (cmd/backupmaker/main.go puts it where the command belongs), whatever the server
        // answers; so its restore is how a version becomes a file.
        t.regex(downloaded.stderr, /syntax error near unexpected token/, way);
      }

      // What they send is a whole body, and then they are gone; of the second and third it is whole ciphertext too.
      const runsWithKeys = year === "2022" ? RUNS_WITH_OWN_KEYS : RUNS_WITH_KEYS;
      for (const [name, command, runs, more] of [
        [failing[0]!, "seq 9; exit 1", RUNS, ["--key", ""]],
        [failing[1]!, `cat ${keys.whole}; exit 1`, RUNS, ["--key", ""]],
        // A dump that breaks off, as it is: GnuPG makes a whole message of its first part.
        [failing[2]!, `(head -c 3000 ${file("dump")}; exit 1)`, runsWithKeys, ["--key", keys.publicKey, ...recipient]],
      ] as const) {
        const codes: (number | null)[] = [];
        const one = async () => {
          while (codes.length < runs) {
            const at = codes.push(null) - 1;
            codes[at] = (await maker(url, name, ["make", "-c", command, ...more])).code;
          }
        };
        await Promise.all(Array.from({ length: AT_ONCE }, one));
        t.is(codes.filter((code) => code === 0).length, 0, `${way}: ${name}`);
        t.is(codes.length, runs);
        t.is((await versions(name)).length, 0, `${way}: ${name}`);
      }
    };
    // At once, each in collections and files of its own: most of the time is spent in the Backup Makers' GnuPG.
    await Promise.all([through("directly", live.server.url), through("nginx", nginx.urls.front!)]);
  });
}
