import type { Collection, Version } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { table } from "@strongroom/command-line/table";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Sdk } from "../context.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, type Connection, withClient } from "../session/session.ts";
import { formatAge, formatTime } from "../terminal/format.ts";
import { collectionReport, enumWord, principal, versionReport } from "../terminal/reports.ts";
import { heldText } from "./show.ts";

/** `strongroom ls`. */
export const ls: CommandSpec = {
  name: "ls",
  summary: "list collections, or the versions of one",
  args: [["[collection]", "name of the collection; without it, collections are listed"]],
  options: [OPTIONS.removed, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom ls", "the collections you may see"],
    ["strongroom ls pg-main", "its versions, newest first"],
    ["strongroom ls pg-main --removed", "what `strongroom undelete` can bring back"],
    ["strongroom ls pg-main --json | jq '.versions[0].version'", "number of the newest"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  // The argument alone: with a collection in the environment there would be no way to list them all.
  const [collection] = args;
  const removed = values.get(OPTIONS.removed);
  if (removed && collection === undefined && values.source(OPTIONS.removed) === "flag")
    throw new UsageError("--removed is about the versions of a collection; name one.");
  return await withClient(context, values, {}, async (connection) => {
    const { sdk } = connection;
    if (collection === undefined) {
      const collections = await listCollections(connection);
      if (output.isJson) output.json({ collections: collections.map((item) => collectionReport(item, sdk)) });
      else if (collections.length === 0) output.note("There is no collection that you may see.");
      else output.line(collectionsTable(collections, sdk));
      return EXIT.ok;
    }
    const versions = await listVersions(connection, collection, removed);
    if (output.isJson) output.json({ collection, versions: versions.map((version) => versionReport(version, sdk)) });
    else if (removed && versions.length === 0)
      output.note(`${collection} has no removed versions that can be brought back.`);
    else if (removed) output.line(removedTable(versions));
    else if (versions.length === 0) output.note(`${collection} has no versions.`);
    else {
      output.line(versionsTable(versions, sdk, context.now()));
      for (const version of versions.filter(({ held }) => held))
        output.note(`Version ${version.number}: ${heldText(version)}.`);
    }
    return EXIT.ok;
  });
}

async function listCollections({ client }: Connection): Promise<Collection[]> {
  return await collectPages(async (pageToken) => {
    const { collections, nextPageToken } = await client.collections.listCollections({ pageToken }, CALL);
    return { items: collections, nextPageToken };
  });
}

async function listVersions({ client }: Connection, collection: string, removed: boolean): Promise<Version[]> {
  return await collectPages(async (pageToken) => {
    const { versions, nextPageToken } = await client.versions.listVersions({ collection, pageToken, removed }, CALL);
    return { items: versions, nextPageToken };
  });
}

/** Collections with their limits and whether they take an upload now. */
export function collectionsTable(collections: readonly Collection[], sdk: Sdk): string {
  const rows = collections.map((collection) => [
    collection.name,
    String(collection.limits?.maxVersions ?? "-"),
    limitText(collection.limits?.maxVersionSizeBytes),
    limitText(collection.limits?.maxCollectionSizeBytes),
    collection.frozen
      ? "-"
      : collection.encryptionFormats.map((format) => enumWord(sdk.EncryptionFormat, format)).join(", "),
    uploadsText(collection),
    collection.description,
  ]);
  return table(
    [
      { title: "COLLECTION" },
      { title: "KEEPS", align: "right" },
      { title: "MAX EACH", align: "right" },
      { title: "MAX ALL", align: "right" },
      { title: "ENCRYPTION" },
      { title: "UPLOADS" },
      { title: "DESCRIPTION" },
    ],
    rows,
  );
}

/** A frozen collection has no limits. */
function limitText(limit: bigint | undefined): string {
  return limit === undefined ? "-" : formatSize(limit);
}

function uploadsText(collection: Collection): string {
  if (collection.frozen) return "frozen";
  if (collection.acceptsUploadsNow) return "open";
  return collection.nextWindowAt === undefined
    ? "closed"
    : `from ${formatTime(collection.nextWindowAt, collection.timezone)}`;
}

/** Removed versions, with the time that is left to bring them back. */
export function removedTable(versions: readonly Version[]): string {
  const rows = versions.map((version) => [
    String(version.number),
    formatSize(version.sizeBytes),
    formatTime(version.begunAt, version.timezone),
    formatTime(version.removedAt, version.timezone),
    formatTime(version.purgeAfter, version.timezone),
  ]);
  return table(
    [
      { title: "VERSION", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "BEGUN" },
      { title: "REMOVED" },
      { title: "CAN BE BROUGHT BACK UNTIL" },
    ],
    rows,
  );
}

/** Versions with what matters for choosing one. */
export function versionsTable(versions: readonly Version[], sdk: Sdk, now: number): string {
  const rows = versions.map((version) => [
    String(version.number),
    formatSize(version.sizeBytes),
    formatAge(version.begunAt, now),
    version.verifiedAt === undefined ? "-" : formatAge(version.verifiedAt, now),
    enumWord(sdk.EncryptionFormat, version.encryptionFormat),
    flags(version, sdk, now),
    principal(version.uploadedBy, version.accessKey),
    version.filename,
  ]);
  return table(
    [
      { title: "VERSION", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "AGE", align: "right" },
      { title: "VERIFIED", align: "right" },
      { title: "ENCRYPTION" },
      { title: "FLAGS" },
      { title: "UPLOADED BY" },
      { title: "FILE" },
    ],
    rows,
  );
}

function flags(version: Version, sdk: Sdk, now: number): string {
  const found: string[] = [];
  if (version.damage !== undefined) found.push("DAMAGED");
  if (version.unchecked) found.push("UNCHECKED");
  if (version.clientMetadata.warning !== undefined) found.push("WARNING");
  if (enumWord(sdk.ContentEncoding, version.contentEncoding) === "zstd") found.push("zstd");
  if (version.armored) found.push("armored");
  if (version.held) found.push("held");
  if (version.protectedUntil !== undefined && Number(version.protectedUntil.seconds) * 1000 > now)
    found.push("protected");
  if (version.aboveSoftLimit) found.push("above-limit");
  return found.join(",");
}
