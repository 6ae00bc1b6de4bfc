/**
 * `strongroom sweep`. The CLI loads this module only for it.
 */
import { randomUUID } from "node:crypto";
import { ConfigFilesSource } from "../adapters/config-files/source.ts";
import { DEFAULT_UPLOAD_SETTINGS } from "../app/settings.ts";
import { giveUpCommit } from "../app/upkeep/give-up-commit.ts";
import { deletableObjects, deleteUnknown, type UnknownObject } from "../app/upkeep/inventory.ts";
import { type SweepAction, type SweepDeps, sweep } from "../app/upkeep/sweep.ts";
import { SegmentAttempts } from "../app/uploads/segment-attempts.ts";
import type { CommandIo } from "./configuration.ts";
import { DATA_EXIT, jsonLine, openData, runDataCommand } from "./open-data.ts";
import type { CommandLine, DataCommand } from "./options.ts";
import { UsageError } from "./options.ts";

const COMMAND: DataCommand = {
  name: "sweep",
  usage: "[options]",
  about: `Does now what the server does by itself every minute: ends uploads, finishes commits, deletes what was removed long
enough ago; and lists what the store holds and nobody knows. With the embedded database the server must be stopped.`,
  options: [
    { name: "dry-run", help: "tell what would be done, and do nothing" },
    {
      name: "delete-unknown",
      help: "delete objects that were unknown at every look for at least 24 hours; with --yes, else they are only listed",
    },
    { name: "yes", help: "do what --delete-unknown or --give-up-commit says" },
    {
      name: "give-up-commit",
      value: "UPLOAD",
      help: "end a commit that the store can never finish, since it has neither the object nor its parts; with --yes",
    },
    { name: "json", help: "print one line of JSON" },
  ],
  positionals: 0,
  examples: [
    "strongroom sweep --data /var/lib/strongroom --dry-run",
    "strongroom sweep --data /var/lib/strongroom --delete-unknown --yes",
    "strongroom sweep --give-up-commit 8e315d9a-0f28-469f-b060-f8fd2e823b3c --yes",
  ],
};

/** `strongroom sweep`: one sweep now. Returns the exit code. */
export async function sweepCommand(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  io: CommandIo,
): Promise<number> {
  return await runDataCommand(COMMAND, args, env, io, async (line, log) => {
    const { own } = line;
    if (own.has("dry-run") && own.has("yes"))
      throw new UsageError("--dry-run does nothing and --yes does something; give one of them");
    if (own.has("give-up-commit") && own.has("delete-unknown"))
      throw new UsageError("--give-up-commit and --delete-unknown are two different things; give one of them");
    const config = await ConfigFilesSource.open(line.server.configDir);
    const opened = await openData(line.server, log);
    const deps: SweepDeps = {
      ...opened,
      config,
      log,
      settings: { ...DEFAULT_UPLOAD_SETTINGS, leastSegmentSize: line.server.segmentSize },
      attempts: new SegmentAttempts(),
      newId: randomUUID,
    };
    try {
      const uploadId = own.get("give-up-commit");
      return uploadId === undefined ? await run(deps, line, io) : await giveUp(deps, uploadId, line, io);
    } finally {
      await opened.database.close();
      await opened.store.close();
    }
  });
}

async function run(deps: SweepDeps, { own }: CommandLine, io: CommandIo): Promise<number> {
  const dryRun = own.has("dry-run");
  const json = own.has("json");
  const actions: SweepAction[] = [];
  const report = await sweep(deps, true, {
    wholeStore: true,
    dryRun,
    onAction: (action) => {
      if (json) actions.push(action);
      else io.stdout.write(`${dryRun ? "would have " : ""}${describe(action)}\n`);
    },
  });
  if (!json) for (const object of report.unknown) io.stdout.write(`unknown: ${named(object)}\n`);

  let deleted: readonly UnknownObject[] = [];
  let exit: number = report.failed > 0 ? DATA_EXIT.failed : DATA_EXIT.ok;
  if (own.has("delete-unknown") && report.deletions) {
    const found = { unknown: report.unknown, leftovers: [], unfinished: [] };
    const deletable = await deletableObjects(deps, found);
    const young = report.unknown.filter(({ isOurs }) => isOurs).length - deletable.length;
    if (own.has("yes")) {
      await deleteUnknown(deps, found, deletable);
      deleted = deletable;
      if (!json) for (const { key } of deletable) io.stdout.write(`deleted: ${key}\n`);
    } else if (deletable.length > 0) {
      for (const { key } of deletable) io.stderr.write(`--delete-unknown would delete ${key}\n`);
      if (!dryRun) {
        io.stderr.write("strongroom sweep: nothing unknown was deleted; add --yes to delete it\n");
        exit = DATA_EXIT.usage;
      }
    }
    if (young > 0)
      io.stderr.write(
        `strongroom sweep: ${young} object(s) stay, since they are known to be unknown for less than 24 hours; run it again later\n`,
      );
  }
  const { unknown, failed, deletions, ...counts } = report;
  if (json) {
    io.stdout.write(jsonLine({ dryRun, ...counts, failed, deletions, actions, unknown, deleted }));
  } else {
    const done = Object.values(counts).reduce((sum, count) => sum + count, 0);
    io.stdout.write(
      `${done} action(s)${dryRun ? " would be done" : ""}, ${failed} failed, ${unknown.length} unknown object(s), ${deleted.length} of them deleted\n`,
    );
  }
  return exit;
}

function describe({ what, fields }: SweepAction): string {
  const details = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
  return `${what}: ${details.join(" ")}`;
}

function named({ key, token, why, size, since }: UnknownObject): string {
  const kind = token === "" ? `${size} bytes` : "unfinished";
  return `${key} (${kind}): ${why}; seen since ${since.toISOString()}`;
}

async function giveUp(deps: SweepDeps, uploadId: string, { own }: CommandLine, io: CommandIo): Promise<number> {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uploadId))
    throw new UsageError("--give-up-commit: expected the id of an upload, like 8e315d9a-0f28-469f-b060-f8fd2e823b3c");
  if (!own.has("yes")) throw new UsageError("--give-up-commit cannot be undone; add --yes to do it");
  const upload = await giveUpCommit(deps, uploadId);
  if (own.has("json")) io.stdout.write(jsonLine({ uploadId, collection: upload.collectionName, state: upload.state }));
  else io.stdout.write(`The commit of upload ${uploadId} to ${upload.collectionName} was given up.\n`);
  return DATA_EXIT.ok;
}
