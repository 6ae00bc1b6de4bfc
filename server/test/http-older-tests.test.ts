/**
 * The black-box tests of the older server, unchanged, from a copy of its repository outside of this one. They are not
 * in any registry: STRONGROOM_OLDER_SERVER names the folder. Their configuration is theirs too, but for one line:
 * `restrictByIP`, which had no effect there.
 */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findPeer } from "@strongroom/testkit/peers/programs";
import { run, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";

/** Those that turn parts of a Kubernetes cluster off and on, of which there is none. */
const NEEDS_CLUSTER = [
  "test_readiness_when_postgresql_is_off",
  "test_readiness_when_storage_is_off",
  "test_kubernetes_connection_will_be_degraded_if_crds_not_present",
];

/** All others. */
const TESTS = [
  "tests.test_collection.CollectionTest.test_cannot_upload_if_uploader_role_not_present",
  "tests.test_collection.CollectionTest.test_gpg_detection",
  "tests.test_health.HealthTest.test_health_endpoint",
  "tests.test_login.LoginTest.test_jwt_gaining",
  "tests.test_login.LoginTest.test_jwt_granted",
  "tests.test_login.LoginTest.test_whoami",
];

test("the black-box tests of the older server pass", async (t) => {
  const older = process.env.STRONGROOM_OLDER_SERVER;
  const python = findPeer("python3");
  if (older === undefined || python === undefined) {
    const message = `SKIPPED: ${t.title}: STRONGROOM_OLDER_SERVER names no copy of its repository`;
    console.error(`!!! ${message}`);
    t.log(message);
    t.pass();
    return;
  }
  t.timeout(5 * 60_000);
  const folder = await temporaryFolder(t);
  const config = join(folder, "config");
  await cp(join(older, "docs", "examples-filesystem", "backup-repository"), config, { recursive: true });
  const admin = join(config, "backups.riotkit.org", "v1alpha1", "backupusers", "admin.yaml");
  const text = await readFile(admin, "utf8");
  await writeFile(admin, text.replace(/ *restrictByIP:\n( *- [\d.]+\n)+/, ""));
  const server = await startServerProcess(["--config", config, "--data", join(folder, "data")]);
  t.teardown(async () => void (await server.end("SIGKILL")));

  // They are for one port, so the address is the one thing that is given to them.
  const copy = join(folder, "older");
  await mkdir(copy);
  await cp(join(older, "tests"), join(copy, "tests"), { recursive: true });
  const start = [
    "import sys, unittest, tests",
    "tests.BaseTestCase._base_url = sys.argv[1]",
    "suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:])",
    "sys.exit(0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1)",
  ].join("\n");
  const { code, stderr } = await run(python, ["-c", start, server.url, ...TESTS], { cwd: copy });
  t.log(stderr);
  t.is(code, 0, stderr);
  t.regex(stderr, new RegExp(`Ran ${TESTS.length} tests`));
  // Whatever else there is must be known here.
  const found = await run(
    python,
    [
      "-c",
      "import unittest; print('\\n'.join(x.id() for s in unittest.defaultTestLoader.discover('.') for c in s for x in c))",
    ],
    { cwd: copy },
  );
  const names = found.stdout.toString().trim().split("\n");
  const unknown = names.filter((name) => !TESTS.includes(name) && !NEEDS_CLUSTER.some((known) => name.endsWith(known)));
  t.deepEqual(unknown, []);
});
