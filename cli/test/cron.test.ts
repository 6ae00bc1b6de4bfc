/** The nightly job of docs/cli.md runs as it stands there: by /bin/sh, with the environment that cron gives a job. */
import { chmod, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { initConfiguration, LOGIN, personEnvironment } from "@strongroom/testkit/installation";
import { run, STRONGROOM, startServerProcess } from "@strongroom/testkit/processes";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test from "ava";

const PAGE = fileURLToPath(new URL("../../docs/cli.md", import.meta.url));
const SECRET = "a secret of the monitoring";

const collection = (name: string) => `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata: { name: ${name} }
spec:
  maxBackupsCount: 3
  maxOneVersionSize: 100M
  maxCollectionSize: 1G
  maxAge: 1d
  healthSecretRef: { name: health, entry: it }
  accessControl: [{ userName: alice, roles: [backupUploader] }]
`;

test("the script goes on after a database that fails, and the check on another machine says which", async (t) => {
  const page = await readFile(PAGE, "utf8");
  const chapter = /## A nightly job in cron\n([\s\S]*?)\n## /.exec(page)![1]!;
  const [script, nightly, watch] = [...chapter.matchAll(/```(?:sh)?\n([\s\S]*?)```/g)].map(([, block]) => block!);
  const dir = await temporaryFolder(t);
  const config = join(dir, "config");
  const admin = await initConfiguration(config);
  const hash = await run(STRONGROOM, ["hash-password", "--password-stdin"], { input: "of the job" });
  await writeFile(
    join(config, "nightly.yaml"),
    `apiVersion: backups.riotkit.org/v1alpha1
kind: BackupUser
metadata: { name: alice }
spec:
  email: alice@example.org
  roles: []
  accessKeys:
    - name: nightly
      password: "${hash.stdout.toString().trim()}"
      objects: [{ name: pg-app, roles: [backupUploader] }, { name: pg-shop, roles: [backupUploader] }]
---
apiVersion: v1
kind: Secret
metadata: { name: health }
data: { it: "${(await import("node:crypto")).createHash("sha256").update(SECRET).digest("hex")}" }
---
${collection("pg-app")}---
${collection("pg-shop")}`,
  );
  const server = await startServerProcess(["--data", join(dir, "data"), "--config", config]);
  t.teardown(async () => void (await server.end("SIGTERM")));

  // The machine of the document, below a folder: its programs, keys and secrets, and a dump of one database that fails.
  const machine = join(dir, "machine");
  const bin = join(machine, "usr/local/bin");
  for (const folder of ["usr/local/bin", "etc/strongroom", "etc/monitoring", "home"])
    await mkdir(join(machine, folder), { recursive: true });
  await symlink(STRONGROOM, join(bin, "strongroom"));
  const keygen = await run(STRONGROOM, ["keygen", "--name", "backup", "--out-dir", join(machine, "etc/strongroom")]);
  t.is(keygen.code, 0, keygen.stderr);
  await writeFile(join(machine, "etc/strongroom/password"), "of the job\n");
  await writeFile(join(machine, "etc/monitoring/pg-app-health"), `${SECRET}\n`);
  await writeFile(
    join(bin, "pg_dump"),
    `#!/bin/sh\nhead -c 11000000 /dev/urandom\n[ "$2" = shop ] || { echo "pg_dump: no $2" >&2; exit 3; }\n`,
  );
  const there = (text: string) =>
    text
      .replaceAll("https://backup.example.org", server.url)
      .replaceAll(/(?<![\w.])\/(usr\/local|etc)\//g, `${machine}/$1/`);
  await writeFile(join(bin, "backup-databases"), there(script!));
  for (const name of ["pg_dump", "backup-databases"]) await chmod(join(bin, name), 0o755);

  /** Runs the lines of a crontab as cron does. */
  const cron = async (table: string) => {
    const env: Record<string, string> = { PATH: "/usr/bin:/bin", HOME: join(machine, "home"), SHELL: "/bin/sh" };
    for (const line of there(table).trim().split("\n")) {
      const [, name, value] = /^([A-Z]+)=(.*)$/.exec(line) ?? [];
      if (name !== undefined) env[name] = value!;
      else {
        const [, command] = /^(?:\S+\s+){5}\S+\s+(.*)$/.exec(line)!;
        return await run("env", [
          "-i",
          ...Object.entries(env).map(([key, text]) => `${key}=${text}`),
          ...["/bin/sh", "-c", command!],
        ]);
      }
    }
    throw new Error("there is no job");
  };

  const job = await cron(nightly!);
  t.is(job.code, 7, job.stderr);
  t.regex(job.stderr, /pg_dump: no app\n[\s\S]*the dump command exited with 3/);
  const env = personEnvironment(dir, server.url);
  t.is((await run(STRONGROOM, LOGIN, { env, input: admin })).code, 0);
  const count = async (name: string) => {
    const listed = await run(STRONGROOM, ["ls", name, "--json"], { env });
    return (JSON.parse(listed.stdout.toString()) as { versions: unknown[] }).versions.length;
  };
  t.is(await count("pg-app"), 0, "nothing was stored of the dump that failed");
  t.is(await count("pg-shop"), 1, "and the next database has its backup");

  const watched = await cron(watch!);
  t.regex(watched.stdout.toString(), /^Collection: +pg-app\nHealth: +failed\n[\s\S]*\nage +failed /, watched.stderr);
});
