/**
 * The files of deploy/, as far as they can be tried without a container engine: linted, and the root of the image run
 * for real.
 */

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { cp, mkdir, readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { OptionValues } from "@strongroom/command-line/values";
import { findPeer, freePort, hasPeers } from "@strongroom/testkit/peers/programs";
import { type Outcome, run } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { serve } from "../../server/src/commands/serve.ts";
import { serverOptions } from "../../server/src/commands/settings.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const DEPLOY = join(ROOT, "deploy");

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  return await new Promise((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  }).then((open) => {
    socket.destroy();
    return open === true;
  });
}

/** What Dockerfile.dockerignore lets into the build. */
const CONTEXT = ["package.json", "package-lock.json", ".npmrc", "LICENSE", "migrations", "testkit/package.json"];
const { workspaces } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { workspaces: string[] };
/** All but the one for tests. */
const WORKSPACES = workspaces.filter((name) => name !== "testkit");

test("the image has the Node.js of package.json", async (t) => {
  const { devDependencies } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  const dockerfile = await readFile(join(DEPLOY, "Dockerfile"), "utf8");
  t.is(/^FROM node:([\d.]+)-/m.exec(dockerfile)?.[1], devDependencies.node);
});

test("the build gets exactly what the image is put together from", async (t) => {
  const ignore = await readFile(join(DEPLOY, "Dockerfile.dockerignore"), "utf8");
  const taken = [...ignore.matchAll(/^!(.*)$/gm)].map(([, path]) => path!);
  t.deepEqual(taken.sort(), [...CONTEXT, ...WORKSPACES, "deploy/assemble-root.sh"].sort());
});

test("hadolint finds nothing in the Dockerfile", async (t) => {
  if (!hasPeers(t, "hadolint")) return;
  const { code, stdout } = await run(findPeer("hadolint")!, [join(DEPLOY, "Dockerfile")]);
  t.is(code, 0, stdout.toString());
});

test("the compose file follows the specification and names only what there is", async (t) => {
  if (!hasPeers(t, "compose-go")) return;
  const { code, stdout, stderr } = await run(
    findPeer("compose-go")!,
    ["-format", "json", "-no-path-resolution", join(DEPLOY, "compose.yaml")],
    {
      env: { COMPOSE_PROJECT_NAME: "strongroom" },
    },
  );
  t.is(code, 0, stderr);
  const { environment } = JSON.parse(stdout.toString()).services.strongroom;
  const options = await serverOptions(OptionValues.resolve(serve.options, new Map(), environment), environment);
  t.like(options.database, { kind: "postgres" });
  t.like(options.storage, { kind: "s3", bucket: "strongroom" });
  t.deepEqual(Object.keys(JSON.parse(stdout.toString()).services).sort(), ["database", "storage", "strongroom"]);
});

test("every service of the compose file is bounded, and none may gain rights", async (t) => {
  if (!hasPeers(t, "compose-go")) return;
  const { stdout } = await run(findPeer("compose-go")!, [
    "-format",
    "json",
    "-no-path-resolution",
    join(DEPLOY, "compose.yaml"),
  ]);
  const services = Object.entries(JSON.parse(stdout.toString()).services as Record<string, Record<string, unknown>>);
  for (const [name, service] of services) {
    t.deepEqual(service.cap_drop, ["ALL"], name);
    t.deepEqual(service.security_opt, ["no-new-privileges:true"], name);
    t.truthy(service.mem_limit, name);
    t.truthy(service.pids_limit, name);
  }
});

test("compose-init gives Strongroom an account of the S3 server that has its bucket, and nothing else", async (t) => {
  if (!hasPeers(t, "versitygw", "setfattr")) return;
  if (process.getuid?.() !== 0) {
    console.error("!!! SKIPPED: compose-init.sh needs root");
    t.log("SKIPPED: compose-init.sh needs root");
    t.pass();
    return;
  }
  const dir = await temporaryFolder(t);
  await mkdir(join(dir, "deploy"));
  await cp(join(DEPLOY, "compose-init.sh"), join(dir, "deploy/compose-init.sh"));
  const init = await run("sh", [join(dir, "deploy/compose-init.sh")], { cwd: dir });
  t.is(init.code, 0, init.stderr);
  const credentials = await readFile(join(dir, "secrets/s3-credentials"), "utf8");
  const [, access = "", secret = ""] = /= (\S+)\n.*= (\S+)\n/.exec(credentials) ?? [];
  const root = await readFile(join(dir, "secrets/s3-server.env"), "utf8");
  t.false(root.includes(access) || root.includes(secret), "the root account is another one");
  const again = await run("sh", [join(dir, "deploy/compose-init.sh")], { cwd: dir });
  t.is(again.code, 0, again.stderr);
  t.is(await readFile(join(dir, "secrets/s3-credentials"), "utf8"), credentials, "what is there stays");

  const port = await freePort();
  const server = spawn(
    findPeer("versitygw")!,
    ["--port", `127.0.0.1:${port}`, "--iam-dir", join(dir, "data/storage-users"), "posix", join(dir, "data/storage")],
    {
      env: {
        ...Object.fromEntries(
          root
            .trim()
            .split("\n")
            .map((line) => line.split("=")),
        ),
      },
      stdio: "ignore",
    },
  );
  t.teardown(() => void server.kill("SIGKILL"));
  while (!(await isOpen(port))) await sleep(50);
  const admin = async (...args: string[]) =>
    await run(findPeer("versitygw")!, [
      ...["admin", "--access", access, "--secret", secret, "--region", "us-east-1"],
      ...["--endpoint-url", `http://127.0.0.1:${port}`, ...args],
    ]);
  t.not((await admin("create-user", "--access", "evil", "--secret", "evil", "--role", "admin")).code, 0);

  const strongroom = join(ROOT, "bin/strongroom");
  const env = { AWS_SHARED_CREDENTIALS_FILE: join(dir, "secrets/s3-credentials"), HOME: dir };
  const place = (bucket: string) => `s3://${bucket}/?endpoint=http://127.0.0.1:${port}&region=us-east-1&pathStyle=true`;
  t.is((await run(strongroom, ["init", join(dir, "c")], { env })).code, 0);
  const serve = async (bucket: string) => {
    const script = `"$0" serve --data "$1" --config "$2" --storage "$3" --listen 127.0.0.1:0 >"$1.out" 2>"$1.log" & pid=$!
      while ! grep -q listens "$1.out" && kill -0 $pid 2>/dev/null; do sleep 0.1; done; kill $pid; wait $pid; cat "$1.out" "$1.log"`;
    return await run("sh", ["-c", script, strongroom, join(dir, bucket), join(dir, "c"), place(bucket)], { env });
  };
  t.regex((await serve("strongroom")).stdout.toString(), /listens on .* storage s3:\/\/strongroom\//);
  await mkdir(join(dir, "data/storage/others"));
  const refused = (await serve("others")).stdout.toString();
  t.notRegex(refused, /listens on/);
  t.regex(refused, /cannot start|denied|AccessDenied/i);
});

test("systemd takes the unit", async (t) => {
  if (!hasPeers(t, "systemd-analyze")) return;
  const { stderr } = await run("systemd-analyze", ["verify", join(DEPLOY, "strongroom.service")]);
  // The program is not installed where the unit says.
  const rest = stderr.split("\n").filter((line) => line !== "" && !line.includes("is not executable"));
  t.deepEqual(rest, []);
});

test("the unit leaves the server little to reach", async (t) => {
  if (!hasPeers(t, "systemd-analyze")) return;
  const { stdout, stderr } = await run("systemd-analyze", [
    ...["security", "--offline=true", "--no-pager", join(DEPLOY, "strongroom.service")],
  ]);
  const exposure = Number(/Overall exposure level for \S+: ([\d.]+)/.exec(stdout.toString())?.[1]);
  // 1.3 where this was written; 1.9 before ProtectProc, PrivateUsers, RemoveIPC and the narrower filter.
  t.true(exposure <= 1.5, `${exposure}\n${stdout}${stderr}`);
});

test("the root of the image runs the server without a shell, as a user without rights", async (t) => {
  if (!hasPeers(t, "ldd", "chroot")) return;
  if (process.getuid?.() !== 0) {
    console.error("!!! SKIPPED: chroot needs root");
    t.log("SKIPPED: chroot needs root");
    t.pass();
    return;
  }
  const dir = await temporaryFolder(t);
  const build = join(dir, "build");
  await mkdir(join(build, "deploy"), { recursive: true });
  for (const name of [...CONTEXT, ...WORKSPACES]) {
    await cp(join(ROOT, name), join(build, name), {
      recursive: true,
      filter: (path) => !/\/(test|node_modules)$/.test(path),
    });
  }
  await cp(join(DEPLOY, "assemble-root.sh"), join(build, "deploy/assemble-root.sh"));
  const succeeded = (outcome: Outcome) => {
    t.is(outcome.code, 0, `${outcome.stdout}${outcome.stderr}`);
    return outcome.stdout.toString();
  };
  const path = { PATH: `${join(ROOT, "node_modules/.bin")}:${process.env.PATH}` };
  succeeded(
    await run("npm", ["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], {
      cwd: build,
      env: path,
    }),
  );
  const image = join(dir, "root");
  succeeded(await run("sh", ["deploy/assemble-root.sh", process.execPath, image], { cwd: build }));

  const inside = async (...args: string[]) =>
    await run("chroot", ["--userspec=65532:65532", image, "/usr/bin/node", ...args], {
      env: { NODE_ENV: "production", NODE_EXTRA_CA_CERTS: "", HOME: "/var/lib/strongroom" },
    });
  const program = "/opt/strongroom/cli/src/main.ts";
  succeeded(await inside(program, "init", "/var/lib/strongroom/config"));
  // The native module for passwords is there, and its libraries.
  t.regex(
    succeeded(await inside("-e", `require("/opt/strongroom/node_modules/argon2").hash("x").then(console.log)`)),
    /^\$argon2id\$/,
  );
  const script = `
    import { spawn } from "node:child_process";
    const server = spawn(process.execPath, ["${program}", "serve", "--data", "/var/lib/strongroom", "--listen", "127.0.0.1:0"], { stdio: ["pipe", "pipe", "inherit"] });
    let out = "";
    server.stdout.on("data", async (chunk) => {
      out += chunk;
      const url = /listens on (\\S+)/.exec(out)?.[1];
      if (url === undefined) return;
      const answer = await fetch(url + "/grpc.health.v1.Health/Check", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
      console.log(await answer.text());
      server.kill("SIGTERM");
    });
    server.on("exit", (code) => process.exit(code));`;
  t.regex(succeeded(await inside("--input-type=module", "-e", script)), /"SERVING"/);
  const shells = await run("find", [
    image,
    "-name",
    "*sh",
    "-perm",
    "-u+x",
    "-type",
    "f",
    "-path",
    "*/bin/*",
    "-not",
    "-path",
    "*/node_modules/*",
  ]);
  t.is(shells.stdout.toString(), "", "there is no shell");
});
