import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { jsonLine } from "@strongroom/command-line/json";
import { flag, option } from "@strongroom/command-line/option";
import { SHARED } from "@strongroom/command-line/shared-options";
import type { OptionValues } from "@strongroom/command-line/values";
import { quantity } from "@strongroom/protocol/quantity";
import type { UnknownObject } from "../app/upkeep/inventory.ts";
import type { SweepAction, SweepDeps } from "../app/upkeep/sweep.ts";
import type { CommandIo, OperatorCommand, OperatorInvocation } from "./context.ts";
import { onData, openData } from "./open-data.ts";
import { DATA_OPTIONS, DRY_RUN, SERVE } from "./options.ts";
import { dataOptions } from "./settings.ts";

const deleteUnknownOption = flag({
  name: "delete-unknown",
  help: "delete objects that were unknown at every look for at least 24 hours; with --yes, else they are only listed",
  argumentsOnly: true,
});
const yes = flag({
  name: "yes",
  help: "do what --delete-unknown, --give-up-commit or --confirm-rollback says",
  argumentsOnly: true,
});
const giveUpCommitOption = option({
  name: "give-up-commit",
  value: "upload",
  help: "end a commit that the store can never finish, since it has neither the object nor its parts; with --yes",
  argumentsOnly: true,
});
const confirmRollbackOption = option({
  name: "confirm-rollback",
  value: "collection",
  help:
    "you know that the database was rolled back, and have looked at the versions that were added to the collection " +
    "from the storage ('*': every one); health stops saying so, and removed versions are deleted again; with --yes",
  argumentsOnly: true,
});

const clockIsRight = flag({
  name: "clock-is-right",
  help: "the database's clock is right now: what is overdue by it is purged and expires again, at once",
  argumentsOnly: true,
});

/** `strongroom sweep`: one sweep now. */
export const sweep: OperatorCommand = {
  name: "sweep",
  summary: "tidy up the server's data now",
  details:
    "Does now what the server does by itself every minute: ends uploads, finishes commits, deletes what was removed " +
    "long enough ago; and lists unrecorded objects in the store. With the embedded database the server must be " +
    "stopped.",
  options: [
    DRY_RUN,
    deleteUnknownOption,
    yes,
    giveUpCommitOption,
    confirmRollbackOption,
    clockIsRight,
    SHARED.json,
    ...DATA_OPTIONS,
    SERVE.segmentSize,
  ],
  examples: [
    ["strongroom sweep --data /var/lib/strongroom --dry-run", "what would be done"],
    ["strongroom sweep --data /var/lib/strongroom --delete-unknown --yes", "delete unrecorded objects"],
    [
      "strongroom sweep --give-up-commit 8e315d9a-0f28-469f-b060-f8fd2e823b3c --yes",
      "a commit that the store can never finish",
    ],
    ["strongroom sweep --confirm-rollback pg-main --yes", "the database was rolled back, and you have looked"],
    ["strongroom sweep --clock-is-right", "purging was paused because of the clock, and somebody looked at it"],
  ],
  run,
};

async function run({ values, context }: OperatorInvocation): Promise<ExitCode> {
  const uploadId = values.get(giveUpCommitOption);
  const isDry = values.get(DRY_RUN);
  if (isDry && values.get(yes))
    throw new UsageError("--dry-run does nothing and --yes does something; give one of them");
  const rolledBack = values.get(confirmRollbackOption);
  const acts = [
    ...(values.get(deleteUnknownOption) ? ["--delete-unknown"] : []),
    ...(uploadId === undefined ? [] : ["--give-up-commit"]),
    ...(rolledBack === undefined ? [] : ["--confirm-rollback"]),
    ...(values.get(clockIsRight) ? ["--clock-is-right"] : []),
  ];
  if (acts.length > 1) throw new UsageError(`${acts.join(" and ")} are different things; give one of them`);
  if (isDry && values.get(clockIsRight))
    throw new UsageError("--dry-run does nothing and --clock-is-right does something; give one of them");
  const single = uploadId !== undefined || rolledBack !== undefined;
  if (isDry && single) throw new UsageError(`--dry-run says nothing of ${acts[0]}; give one of them`);
  if (uploadId !== undefined && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uploadId))
    throw new UsageError("--give-up-commit: expected the id of an upload, like 8e315d9a-0f28-469f-b060-f8fd2e823b3c");
  if (single && !values.get(yes)) throw new UsageError(`${acts[0]} cannot be undone; add --yes to do it`);
  const options = await dataOptions(values, context.env);
  return await onData(options, context, async (log) => {
    const [{ randomUUID }, { ConfigFilesSource }, { DEFAULT_UPLOAD_SETTINGS }, { SegmentAttempts }] = await Promise.all(
      [
        import("node:crypto"),
        import("../adapters/config-files/source.ts"),
        import("../app/settings.ts"),
        import("../app/uploads/segment-attempts.ts"),
      ],
    );
    const config = await ConfigFilesSource.open(options.configDir);
    const opened = await openData(options, log);
    const deps: SweepDeps = {
      ...opened,
      config,
      log,
      settings: { ...DEFAULT_UPLOAD_SETTINGS, leastSegmentSize: values.get(SERVE.segmentSize) },
      attempts: new SegmentAttempts(),
      newId: randomUUID,
    };
    try {
      if (uploadId !== undefined) return await giveUp(deps, uploadId, values, context);
      if (rolledBack !== undefined) return await confirm(deps, rolledBack, values, context);
      return await sweepNow(deps, values, context);
    } finally {
      await opened.database.close();
      await opened.store.close();
    }
  });
}

async function sweepNow(deps: SweepDeps, values: OptionValues, io: CommandIo): Promise<ExitCode> {
  const [{ sweep }, { deletableObjects, deleteUnknown }, { ClockWatch, confirmClock, peekAtClock }] = await Promise.all(
    [import("../app/upkeep/sweep.ts"), import("../app/upkeep/inventory.ts"), import("../app/upkeep/clock-watch.ts")],
  );
  if (values.get(clockIsRight)) await confirmClock(deps.database);
  const clock = values.get(DRY_RUN) ? await peekAtClock(deps.database) : await new ClockWatch(deps).look();
  if (clock.status !== "right") io.stderr.write(`strongroom sweep: ${clock.message}\n`);
  const [dryRun, json] = [values.get(DRY_RUN), values.get(SHARED.json)];
  const actions: SweepAction[] = [];
  const report = await sweep(deps, clock.status === "right", {
    wholeStore: true,
    dryRun,
    onAction: (action) => {
      if (json) actions.push(action);
      else io.stdout.write(`${dryRun ? "would have " : ""}${describe(action)}\n`);
    },
  });
  if (!json) for (const object of report.unknown) io.stdout.write(`unknown: ${named(object)}\n`);

  let deleted: readonly UnknownObject[] = [];
  let exit: ExitCode = report.failed > 0 ? EXIT.unexpected : EXIT.ok;
  if (values.get(deleteUnknownOption) && !report.compared)
    io.stderr.write("strongroom sweep: nothing unknown is deleted: the storage could not be compared\n");
  if (values.get(deleteUnknownOption) && report.deletions && report.compared) {
    const found = { unknown: report.unknown, leftovers: [], unfinished: [] };
    const deletable = await deletableObjects(deps, found);
    const young = report.unknown.filter(({ isOurs }) => isOurs).length - deletable.length;
    if (values.get(yes)) {
      await deleteUnknown(deps, found, deletable);
      deleted = deletable;
      if (!json) for (const { key } of deletable) io.stdout.write(`deleted: ${key}\n`);
    } else if (deletable.length > 0) {
      for (const { key } of deletable) io.stderr.write(`--delete-unknown would delete ${key}\n`);
      if (!dryRun) {
        io.stderr.write("strongroom sweep: nothing unknown was deleted; add --yes to delete it\n");
        exit = EXIT.usage;
      }
    }
    if (young > 0)
      io.stderr.write(
        `strongroom sweep: ${quantity(young, "object")} ${young === 1 ? "stays" : "stay"}: first seen as unknown less than 24 hours ago; run it again later\n`,
      );
  }
  const { unknown, failed, deletions, compared, ...counts } = report;
  if (json) {
    io.stdout.write(jsonLine({ dryRun, ...counts, failed, deletions, compared, clock, actions, unknown, deleted }));
  } else {
    const done = Object.values(counts).reduce((sum, count) => sum + count, 0);
    io.stdout.write(
      `${quantity(done, "action")}${dryRun ? " would be done" : ""}, ${failed} failed, ${unknown.length} unknown ` +
        `object(s), ${deleted.length} of them deleted\n`,
    );
  }
  return exit;
}

async function giveUp(deps: SweepDeps, uploadId: string, values: OptionValues, io: CommandIo): Promise<ExitCode> {
  const { giveUpCommit } = await import("../app/upkeep/give-up-commit.ts");
  const upload = await giveUpCommit(deps, uploadId);
  if (values.get(SHARED.json))
    io.stdout.write(jsonLine({ uploadId, collection: upload.collectionName, state: upload.state }));
  else io.stdout.write(`The commit of upload ${uploadId} to ${upload.collectionName} was given up.\n`);
  return EXIT.ok;
}

async function confirm(deps: SweepDeps, name: string, values: OptionValues, io: CommandIo): Promise<ExitCode> {
  const { confirmRollback } = await import("../app/upkeep/confirm-rollback.ts");
  const collections = await confirmRollback(deps, name);
  if (values.get(SHARED.json)) io.stdout.write(jsonLine({ confirmed: collections }));
  else io.stdout.write(`Confirmed for ${collections.join(", ")}.\n`);
  return EXIT.ok;
}

function describe({ what, fields }: SweepAction): string {
  const details = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
  return `${what}: ${details.join(" ")}`;
}

function named({ key, token, why, size, since }: UnknownObject): string {
  const kind = token === "" ? `${size} bytes` : "unfinished";
  return `${key} (${kind}): ${why}; seen since ${since.toISOString()}`;
}
