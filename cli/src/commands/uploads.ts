import type { StrongroomClient, Upload } from "@strongroom/client-sdk";
import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { table } from "@strongroom/command-line/table";
import { formatSize } from "@strongroom/protocol/sizes";
import { requiredCollection } from "../collection-argument.ts";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, type Connection, withClient } from "../session/session.ts";
import { formatAge, formatTime, toIso } from "../terminal/format.ts";
import { enumWord, principal } from "../terminal/reports.ts";

/** Letters of an id that are shown, and the fewest that name one. */
const SHOWN = 12;
const FEWEST = 6;
const EXAMPLE = "strongroom uploads pg-main";

/** `strongroom uploads`. */
export const uploads: CommandSpec = {
  name: "uploads",
  summary: "list the uploads of a collection that are under way, or give one up",
  details:
    "A backup that was killed keeps its place in the collection until its lease ends, some 15 minutes later; --abort " +
    "frees it at once. You see your own uploads, and those of everybody where you may manage the collection.",
  args: [["[collection]", "name of the collection"]],
  options: [OPTIONS.abort, OPTIONS.collection, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    [EXAMPLE, "what is under way"],
    ["strongroom uploads pg-main --abort 3f9c2ab81d04", "give one up; the beginning of its id is enough"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const collection = requiredCollection(args[0], values, EXAMPLE);
  const abort = values.get(OPTIONS.abort);
  return await withClient(context, values, {}, async ({ client, sdk }) => {
    const found = await listUploads(client, collection);
    if (abort !== undefined) {
      const { uploadId } = named(found, abort);
      const reason = `given up with strongroom uploads on ${context.hostname}`;
      await client.uploads.abortUpload({ uploadId, reason }, CALL);
      context.achieved?.();
      if (output.isJson) output.json({ aborted: uploadId });
      else output.note(`Gave up upload ${uploadId}. Nothing of it is kept, and its place is free.`);
      return EXIT.ok;
    }
    if (output.isJson) {
      output.json({ uploads: found.map((upload) => uploadReport(upload, sdk)) });
      return EXIT.ok;
    }
    const rows = found.map((upload) => [
      upload.uploadId.slice(0, SHOWN),
      principal(upload.user, upload.accessKey),
      upload.clientMetadata.host ?? "",
      formatAge(upload.begunAt, context.now()),
      formatSize(upload.storedBytes),
      upload.lapsed ? "lapsed" : enumWord(sdk.UploadState, upload.state),
      formatTime(upload.leaseExpiresAt, upload.timezone),
    ]);
    const columns = [
      { title: "UPLOAD" },
      { title: "USER" },
      { title: "HOST" },
      { title: "AGE", align: "right" as const },
      { title: "STORED", align: "right" as const },
      { title: "STATE" },
      { title: "LEASE ENDS" },
    ];
    if (rows.length === 0) output.note(`No upload to ${collection} is under way.`);
    else output.line(table(columns, rows));
    return EXIT.ok;
  });
}

async function listUploads(client: StrongroomClient, collection: string): Promise<Upload[]> {
  return await collectPages(async (pageToken) => {
    const { uploads, nextPageToken } = await client.uploads.listUploads({ collection, pageToken }, CALL);
    return { items: uploads, nextPageToken };
  });
}

function named(found: readonly Upload[], given: string): Upload {
  if (given.length < FEWEST) throw new UsageError(`--abort: expected at least the first ${FEWEST} letters of an id.`);
  const matches = found.filter(({ uploadId }) => uploadId.startsWith(given));
  if (matches.length === 1) return matches[0]!;
  if (matches.length > 1)
    throw new UsageError(`${matches.length} uploads have ids that begin with ${given}; give more.`);
  throw new CommandError(`No upload that is under way has an id that begins with ${given}.`, EXIT.refused, {
    hint: "`strongroom uploads COLLECTION` lists them",
  });
}

function uploadReport(upload: Upload, sdk: Connection["sdk"]): Record<string, unknown> {
  return {
    uploadId: upload.uploadId,
    collection: upload.collection,
    state: enumWord(sdk.UploadState, upload.state),
    lapsed: upload.lapsed,
    user: upload.user,
    accessKey: upload.accessKey || undefined,
    storedBytes: upload.storedBytes,
    reservedBytes: upload.reservedBytes,
    begunAt: toIso(upload.begunAt),
    leaseExpiresAt: toIso(upload.leaseExpiresAt),
    expiresAt: toIso(upload.expiresAt),
    clientMetadata: upload.clientMetadata,
  };
}
