/**
 * `strongroom verify`. The CLI loads this module only for it.
 */

import { formatSize } from "@strongroom/protocol/sizes";
import { BlobStoreError } from "../app/ports/blob-store.ts";
import type { Database, VersionRow } from "../app/ports/database.ts";
import { recordVerification, type VerifyDeps, verifyVersion } from "../app/versions/verify-version.ts";
import type { CommandIo } from "./configuration.ts";
import { DATA_EXIT, jsonLine, openData, runDataCommand } from "./open-data.ts";
import type { DataCommand } from "./options.ts";
import { UsageError } from "./options.ts";

const COMMAND: DataCommand = {
  name: "verify",
  usage: "[COLLECTION[/NUMBER]] [options]",
  about: `Reads stored versions back and compares every byte with the digests that were acknowledged: all versions, those of a
collection, or one. What differs is marked as damaged, and \`strongroom health\` fails; a version that is whole again is
unmarked. With the embedded database the server must be stopped; it verifies by itself too (--verify-every of serve).`,
  options: [{ name: "json", help: "print one line of JSON for each version" }],
  positionals: 1,
  examples: [
    "strongroom verify --data /var/lib/strongroom",
    "strongroom verify pg-main",
    "strongroom verify pg-main/17",
  ],
};

/** Collections read from the database at once. */
const PAGE = 500;

/** `strongroom verify`: verifies stored versions now. Returns the exit code. */
export async function verifyCommand(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  io: CommandIo,
): Promise<number> {
  return await runDataCommand(COMMAND, args, env, io, async (line, log) => {
    const wanted = parseTarget(line.positionals[0]);
    const opened = await openData(line.server, log);
    try {
      return await verifyAll({ ...opened, log }, wanted, line.own.has("json"), io);
    } finally {
      await opened.database.close();
      await opened.store.close();
    }
  });
}

interface Target {
  readonly collection: string | undefined;
  readonly number: bigint | undefined;
}

function parseTarget(text: string | undefined): Target {
  if (text === undefined) return { collection: undefined, number: undefined };
  const match = /^([^/]+)(?:\/v?([1-9]\d{0,17}))?$/.exec(text);
  if (match === null)
    throw new UsageError(`expected COLLECTION or COLLECTION/NUMBER, such as pg-main/17, got "${text}"`);
  return { collection: match[1]!, number: match[2] === undefined ? undefined : BigInt(match[2]) };
}

async function verifyAll(deps: VerifyDeps, wanted: Target, json: boolean, io: CommandIo): Promise<number> {
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
          `${version.collectionName}/${version.number}: ${result.damage === "" ? "whole" : `DAMAGED: ${result.damage}`} (${formatSize(version.size)})\n`,
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
    io.stderr.write(`strongroom verify: collection "${wanted.collection}" has ${what}\n`);
    return DATA_EXIT.refused;
  }
  if (!json)
    io.stdout.write(
      `${counts.whole} whole, ${counts.damaged} damaged, ${counts.unknown} not verified; ${formatSize(counts.bytes)} read\n`,
    );
  if (counts.damaged > 0) return DATA_EXIT.integrity;
  return counts.unknown > 0 ? DATA_EXIT.unavailable : DATA_EXIT.ok;
}

async function* liveVersions(database: Database, { collection, number }: Target): AsyncGenerator<VersionRow> {
  for (let after = ""; ; ) {
    const page = await database.transaction(async (tx) => {
      if (collection === undefined) return await tx.collections.list(after, PAGE);
      const one = await tx.collections.findByName(collection);
      return one === undefined ? [] : [one];
    });
    for (const { id } of page) {
      const versions = await database.transaction(async (tx) => await tx.versions.allLive(id));
      versions.sort((a, b) => (a.number < b.number ? -1 : 1));
      yield* versions.filter((version) => number === undefined || version.number === number);
    }
    if (collection !== undefined || page.length < PAGE) return;
    after = page.at(-1)!.name;
  }
}
