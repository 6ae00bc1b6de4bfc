/**
 * The tour of the README runs as it stands there.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { initConfiguration } from "@strongroom/testkit/installation";
import { run, startServerProcess } from "@strongroom/testkit/processes";
import test from "ava";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

test("the tour of the README", async (t) => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const tour = /<!-- tour -->\n```sh\n([\s\S]+?)```/.exec(readme)?.[1];
  if (tour === undefined) {
    t.fail("README.md has no block after <!-- tour -->");
    return;
  }
  const dir = await mkdtemp(join(tmpdir(), "strongroom-readme-"));
  const password = await initConfiguration(join(dir, "data", "config"));
  const server = await startServerProcess(["--data", join(dir, "data")]);
  try {
    const env = { STRONGROOM_URL: server.url, STRONGROOM_PASSWORD: password, XDG_CONFIG_HOME: join(dir, "home") };
    const outcome = await run("bash", ["-euo", "pipefail", "-c", tour], { cwd: ROOT, env });
    t.is(outcome.code, 0, outcome.stderr);
    t.regex(outcome.stdout.toString(), /default-1/);
  } finally {
    await server.end("SIGTERM");
    await rm(dir, { recursive: true, force: true });
  }
});
