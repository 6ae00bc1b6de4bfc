import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { jsonLine } from "@strongroom/command-line/json";
import { SHARED } from "@strongroom/command-line/shared-options";
import { shown } from "@strongroom/command-line/shown";
import { formatSize } from "@strongroom/protocol/sizes";
import type { Database, VersionRow } from "../app/ports/database.ts";
import type { VerifyDeps } from "../app/versions/verify-version.ts";
import type { CommandIo, OperatorCommand } from "./context.ts";
import { onData, openData } from "./open-data.ts";
import { DATA_OPTIONS } from "./options.ts";
import { dataOptions } from "./settings.ts";

/** `strongroom verify`: verifies stored versions now. */
export const verify: OperatorCommand = {
  name: "verify",
  summary: "read stored versions back and compare them",
  details:
    "Reads stored versions back and compares every byte with the digests that were acknowledged: all versions, those " +
    "of a collection, or one. What differs is marked as damaged, and `strongroom health` fails; a version that is " +
    "whole again is unmarked. With the embedded database the server must be stopped; it verifies by itself too " +
    "(--verify-every of serve). --json prints one line of JSON for each version. Exit code 6: a version is damaged.",
  args: [["[target]", "COLLECTION or COLLECTION/NUMBER; without it, all versions"]],
  options: [SHARED.json, ...DATA_OPTIONS],
  examples: [
    ["strongroom verify --data /var/lib/strongroom", "all versions"],
    ["strongroom verify pg-main", "those of a collection"],
    ["strongroom verify pg-main/17", "one version"],
  ],
  run: async ({ args, values, context }) => {
    const wanted = parseTarget(args[0]);
    const options = await dataOptions(values, context.env);
    return await onData(options, context, async (log) => {
      const opened = await openData(options, log);
      try {
        return await verifyAll({ ...opened, log }, wanted, values.get(SHARED.json), context);
      } finally {
        await opened.database.close();
        await opened.store.close();
      }
    });
  },
};

/** Collections read from the database at once. */
const PAGE = 500;

interface Target {
  readonly collection: string | undefined;
  readonly number: bigint | undefined;
}

function parseTarget(text: string | undefined): Target {
  if (text === undefined) return { collection: undefined, number: undefined };
  const match = /^([^/]+)(?:\/v?([1-9]\d{0,17}))?$/.exec(text);
  if (match === null)
    throw new UsageError(`expected COLLECTION or COLLECTION/NUMBER, such as pg-main/17, got ${shown(text)}`);
  return { collection: match[1]!, number: match[2] === undefined ? undefined : BigInt(match[2]) };
}

async function verifyAll(deps: VerifyDeps, wanted: Target, json: boolean, io: CommandIo): Promise<ExitCode> {
  const [{ recordVerification, verifyVersion }, { BlobStoreError }] = await Promise.all([
    import("../app/versions/verify-version.ts"),
    import("../app/ports/blob-store.ts"),
  ]);
  const counts = { whole: 0, damaged: 0, unknown: 0, bytes: 0n };
  let found = false;
  for await (const version of liveVersions(deps.database, wanted)) {
    found = true;
    const name = { collection: version.collectionName, number: version.number, size: version.size };
    try {
      const result = await verifyVersion(deps, version, { signal: new AbortController().signal });
      await recordVerification(deps, version, result);
      counts[result.damage === "" ? "whole" : "damaged"]++;
      counts.bytes += version.size;
      if (json) io.stdout.write(jsonLine({ ...name, ok: result.damage === "", ...result }));
      else
        io.stdout.write(
          `${version.collectionName}/${version.number}: ` +
            `${result.damage === "" ? "whole" : `DAMAGED: ${result.damage}`} (${formatSize(version.size)})\n`,
        );
    } catch (error) {
      if (!(error instanceof BlobStoreError)) throw error;
      counts.unknown++;
      if (json) io.stdout.write(jsonLine({ ...name, ok: null, error: error.message }));
      else io.stdout.write(`${version.collectionName}/${version.number}: not verified: ${error.message}\n`);
    }
  }
  if (!found && wanted.collection !== undefined) {
    const what = wanted.number === undefined ? "no stored version" : `no version ${wanted.number}`;
    throw new CommandError(`collection ${shown(wanted.collection)} has ${what}`, EXIT.refused);
  }
  if (!json)
    io.stdout.write(
      `${counts.whole} whole, ${counts.damaged} damaged, ${counts.unknown} not verified; ` +
        `${formatSize(counts.bytes)} read\n`,
    );
  if (counts.damaged > 0) return EXIT.integrity;
  return counts.unknown > 0 ? EXIT.network : EXIT.ok;
}

async function* liveVersions(database: Database, { collection, number }: Target): AsyncGenerator<VersionRow> {
  for (let after = ""; ; ) {
    const page = await database.transaction(async (tx) => {
      if (collection === undefined) return await tx.collections.list(after, PAGE);
      const one = await tx.collections.findByName(collection);
      return one === undefined ? [] : [one];
    });
    for (const { id } of page) {
      const live = await database.transaction(async (tx) => await tx.versions.allLive(id));
      live.sort((a, b) => (a.number < b.number ? -1 : 1));
      for (const one of live.filter((version) => number === undefined || version.number === number)) {
        const version = await database.transaction(async (tx) => await tx.versions.findById(one.id));
        if (version?.state === "live") yield version;
      }
    }
    if (collection !== undefined || page.length < PAGE) return;
    after = page.at(-1)!.name;
  }
}
