import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { interruptible } from "@strongroom/command-line/interruptible";
import { jsonLine } from "@strongroom/command-line/json";
import { flag, option } from "@strongroom/command-line/option";
import { SHARED } from "@strongroom/command-line/shared-options";
import { table } from "@strongroom/command-line/table";
import { quantity } from "@strongroom/protocol/quantity";
import { formatSize } from "@strongroom/protocol/sizes";
import type { ImportProgress, ImportReport } from "../app/import/import-installation.ts";
import type { BlobStore } from "../app/ports/blob-store.ts";
import type { Database } from "../app/ports/database.ts";
import type { OldDatabase } from "../app/ports/old-installation.ts";
import { parsePostgresUrl } from "../domain/postgres-url.ts";
import type { CommandIo, OperatorCommand, OperatorInvocation } from "./context.ts";
import { asCommandError, onData, openData, requireDirectory } from "./open-data.ts";
import { DATA_OPTIONS, DRY_RUN, SERVE } from "./options.ts";
import { type DataOptions, dataOptions } from "./settings.ts";

const fromDatabase = option({
  name: "from-database",
  value: "url",
  help:
    "database of Backup Repository, `postgres://USER@HOST/DATABASE`, with a password in the variable only; it is only " +
    "read. Without it numbers come from file names, and times from the storage",
  read: parsePostgresUrl,
});
const fromPasswordFile = option({
  name: "from-database-password-file",
  value: "file",
  help: "read the password of that database from this file",
});
const finish = flag({
  name: "finish",
  help: "give up the way back: imported versions that were removed are deleted from now on; with --yes",
  argumentsOnly: true,
});
const yes = flag({ name: "yes", help: "do what --finish says", argumentsOnly: true });

/** Between two lines about progress, in milliseconds. */
const PROGRESS_MS = 5000;

/** `strongroom import`: takes over the versions of Backup Repository. */
export const importCommand: OperatorCommand = {
  name: "import",
  summary: "take over the versions of Backup Repository",
  details:
    "Makes versions of the objects that Backup Repository stored in the bucket or directory of --storage, where they " +
    "lie: each is read and checked once, nothing is copied, changed or deleted. Stop both servers first. The database " +
    "of this server must be new, or have been imported into before. After an interruption run it again. Exit code 6: " +
    "something was not imported, or did not pass the check; the rest is there. " +
    "docs/moving-from-backup-repository.md is the whole procedure.",
  options: [
    DRY_RUN,
    fromDatabase,
    fromPasswordFile,
    finish,
    yes,
    SHARED.json,
    SHARED.quiet,
    ...DATA_OPTIONS,
    SERVE.segmentSize,
  ],
  examples: [
    [
      "strongroom import --storage file:///var/lib/backups --from-database postgres://br@db/br --dry-run",
      "what would be imported",
    ],
    ['strongroom import --storage "s3://backups?region=eu-central-1"', "without the old database"],
    ["strongroom import --finish --yes", "nobody goes back"],
  ],
  run: async (invocation) => {
    try {
      return await interruptible(invocation.context, {}, (signal) => run(invocation, signal));
    } catch (error) {
      throw await asCommandError(error);
    }
  },
};

async function run(invocation: OperatorInvocation, signal: AbortSignal): Promise<ExitCode> {
  const { values, context } = invocation;
  const options = await dataOptions(values, context.env);
  const isEnd = values.get(finish);
  if (isEnd && values.get(DRY_RUN)) throw new UsageError("--dry-run says nothing of --finish; give one of them");
  if (isEnd && !values.get(yes)) throw new UsageError("--finish cannot be undone; add --yes to do it");
  return isEnd ? await end(options, invocation) : await take(options, invocation, signal);
}

async function take(
  options: DataOptions,
  { values, context }: OperatorInvocation,
  signal: AbortSignal,
): Promise<ExitCode> {
  await requireDirectory(options.storage, "--storage");
  const [dryRun, json, quiet] = [values.get(DRY_RUN), values.get(SHARED.json), values.get(SHARED.quiet)];
  return await onData(options, context, async (log) => {
    const [{ openStore }, { openStorage }, { storeInstallation }, { ConfigFilesSource }, importing, settings] =
      await Promise.all([
        import("../adapters/stores.ts"),
        import("../main.ts"),
        import("../app/installation.ts"),
        import("../adapters/config-files/source.ts"),
        import("../app/import/import-installation.ts"),
        import("../app/settings.ts"),
      ]);
    const config = await ConfigFilesSource.open(options.configDir);
    const opened: (BlobStore | Database | OldDatabase)[] = [];
    try {
      let store: BlobStore;
      let database: Database | undefined;
      if (dryRun) {
        store = await openStore(options.storage, log);
        opened.push(store);
        // A dry run makes no database.
        if ((await storeInstallation(store)) !== undefined) {
          await store.close();
          opened.length = 0;
          ({ store, database } = await openData(options, log, { importing: true }));
          opened.push(store, database);
        }
      } else {
        ({ store, database } = await openStorage(options, log));
        opened.push(store, database);
      }
      const old = await openOld(values, context.env);
      if (old !== undefined) opened.push(old);
      const report = await importing.importInstallation(
        {
          store,
          database,
          old,
          config,
          settings: { ...settings.DEFAULT_UPLOAD_SETTINGS, leastSegmentSize: values.get(SERVE.segmentSize) },
          signal,
          onProgress: quiet ? () => {} : progressTo(context),
        },
        { dryRun },
      );
      if (json) context.stdout.write(jsonLine({ dryRun, ...report }));
      else print(report, dryRun, context);
      const unchecked = report.collections.reduce((sum, collection) => sum + collection.unchecked, 0);
      return report.problems.length + unchecked > 0 ? EXIT.integrity : EXIT.ok;
    } catch (error) {
      if (signal.aborted) context.stderr.write("strongroom import: stopped; run the same command again to go on\n");
      throw error;
    } finally {
      for (const one of opened.reverse()) await one.close();
    }
  });
}

async function openOld(
  values: OperatorInvocation["values"],
  env: Readonly<Record<string, string | undefined>>,
): Promise<OldDatabase | undefined> {
  const location = values.get(fromDatabase);
  const passwordFile = values.get(fromPasswordFile);
  if (location === undefined) {
    if (passwordFile !== undefined) throw new UsageError("--from-database-password-file needs --from-database");
    return undefined;
  }
  if (values.source(fromDatabase) === "flag" && location.password !== undefined)
    throw new UsageError(
      "--from-database: a password in an argument can be read by everyone on this machine. Put the URL into the " +
        "variable STRONGROOM_FROM_DATABASE, or leave the password out and name a file that has it: " +
        "--from-database-password-file FILE",
    );
  const { OldPostgresDatabase } = await import("../adapters/postgres/old-database.ts");
  return await OldPostgresDatabase.open(location, { passwordFile, passFile: env.PGPASSFILE || undefined });
}

function progressTo({ stderr }: CommandIo): (progress: ImportProgress) => void {
  let saidAt = performance.now();
  return ({ versions, allVersions, bytes, allBytes, done }) => {
    if (done?.unchecked) stderr.write(`UNCHECKED ${done.key}: ${done.unchecked}\n`);
    if (performance.now() - saidAt < PROGRESS_MS) return;
    saidAt = performance.now();
    stderr.write(
      `${versions} of ${allVersions} versions, ${formatSize(bytes)} of ${formatSize(allBytes)}` +
        `${allBytes === 0n ? "" : ` (${(bytes * 100n) / allBytes} %)`}\n`,
    );
  };
}

function print(report: ImportReport, dryRun: boolean, { stdout }: CommandIo): void {
  const { collections, problems, sessions } = report;
  const rows = collections.map((one) => [
    one.name,
    String(one.versions),
    formatSize(one.bytes),
    one.versions === 0 ? "-" : `${one.firstNumber} to ${one.lastNumber}`,
    String(one.nextNumber),
    String(one.present),
    dryRun ? "-" : String(one.unchecked),
  ]);
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "COLLECTION" },
    right("VERSIONS"),
    right("SIZE"),
    right("NUMBERS"),
    right("NEXT"),
    right("THERE BEFORE"),
    right("UNCHECKED"),
  ];
  stdout.write(`${table(columns, rows)}\n`);
  for (const { name, retired } of collections)
    if (retired > 0)
      stdout.write(
        `${name}: ${retired} that Backup Repository has deleted since ${dryRun ? "would be" : "were"} removed\n`,
      );
  for (const { name, warnings } of collections)
    for (const warning of warnings) stdout.write(`warning: ${name}: ${warning}\n`);
  for (const { kind, key, why } of problems) stdout.write(`${kind}: ${key}: ${why}\n`);
  if (sessions !== undefined)
    stdout.write(
      `${dryRun ? "Would take over" : "Took over"} ${quantity(sessions.imported, "session")}; ${sessions.present} were there, ` +
        `${sessions.ended} ended. Their tokens work while the server has --old-token-secret-file.\n`,
    );
  const sum = (of: (one: (typeof collections)[number]) => number) =>
    collections.reduce((total, one) => total + of(one), 0);
  const bytes = collections.reduce((total, one) => total + one.bytes, 0n);
  stdout.write(
    `${dryRun ? "Would import" : "Imported"} ${quantity(
      sum(({ versions, present }) => versions - present),
      "version",
    )}, and ` +
      `${sum(({ present }) => present)} were there: ${formatSize(bytes)} in ${quantity(collections.length, "collection")}. ` +
      `${quantity(problems.length, "problem")}${dryRun ? "" : `, ${sum(({ unchecked }) => unchecked)} unchecked`}.\n`,
  );
  if (dryRun) stdout.write("No object was read; the real run reads and checks each of them.\n");
  else stdout.write("Nothing of Backup Repository was changed. `strongroom import --finish` gives up the way back.\n");
}

async function end(options: DataOptions, { values, context }: OperatorInvocation): Promise<ExitCode> {
  return await onData(options, context, async (log) => {
    const { finishImport } = await import("../app/import/finish-import.ts");
    const { store, database } = await openData(options, log);
    try {
      const report = await finishImport({ store, database });
      if (values.get(SHARED.json)) context.stdout.write(jsonLine({ ...report }));
      else
        context.stdout.write(
          `${quantity(report.versions, "version")}, ${formatSize(report.bytes)}, are Strongroom's alone now; ${report.removed} of ` +
            "them had been removed, and are deleted after their time.\n",
        );
      return EXIT.ok;
    } finally {
      await database.close();
      await store.close();
    }
  });
}
