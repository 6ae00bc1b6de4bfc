/**
 * The files of deploy/, as far as they can be tried without a container engine: linted, and the root of the image run
 * for real.
 */

import { readFileSync } from "node:fs";
import { cp, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { OptionValues } from "@strongroom/command-line/values";
import { findPeer, hasPeers } from "@strongroom/testkit/peers/programs";
import { type Outcome, run } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";
import { serve } from "../../server/src/commands/serve.ts";
import { serverOptions } from "../../server/src/commands/settings.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const DEPLOY = join(ROOT, "deploy");

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

test("systemd takes the unit", async (t) => {
  if (!hasPeers(t, "systemd-analyze")) return;
  const { stderr } = await run("systemd-analyze", ["verify", join(DEPLOY, "strongroom.service")]);
  // The program is not installed where the unit says.
  const rest = stderr.split("\n").filter((line) => line !== "" && !line.includes("is not executable"));
  t.deepEqual(rest, []);
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
