import type { ServiceImpl } from "@connectrpc/connect";
import type { GetVersionRequest, VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { DIGESTS_PAGE, MAX_REASON_LENGTH, PAGE } from "@strongroom/protocol/limits";
import { timezoneOf } from "../app/ports/config-source.ts";
import type { VersionRow } from "../app/ports/database.ts";
import { stillStanding } from "../app/sessions/sessions.ts";
import { confirmVersion } from "../app/versions/confirm-version.ts";
import { holdVersion, releaseVersion } from "../app/versions/hold-version.ts";
import { listKeys } from "../app/versions/list-keys.ts";
import { undeleteVersion } from "../app/versions/undelete-version.ts";
import {
  deleteVersion,
  getVersion,
  listSegmentDigests,
  listVersions,
  readVersion,
  requireDownload,
  type VersionDeps,
} from "../app/versions/versions.ts";
import { invalidField } from "../domain/errors.ts";
import { recipientName } from "../domain/key-inventory.ts";
import { addressOf, callerOf, outletOf } from "./connect-calls.ts";
import { versionMessage } from "./messages.ts";
import { byteCountOf, collectionNameOf, pagePosition, pageSizeOf, pageToken, textOf } from "./shapes.ts";

/** VersionService of the contract. */
export function versionService(deps: VersionDeps): ServiceImpl<typeof VersionService> {
  const message = (row: VersionRow) => versionMessage(row, timezoneOf(deps.config, row.collectionName));
  return {
    async listVersions(req, context) {
      const list = req.removed ? "removed versions" : "versions";
      const before = pagePosition(list, req.pageToken, /^\d{1,18}$/);
      const { versions, nextBefore } = await listVersions(deps, callerOf(context.values), {
        collection: collectionNameOf(req.collection),
        beforeNumber: before === undefined ? undefined : BigInt(before),
        pageSize: pageSizeOf(req.pageSize, PAGE),
        removed: req.removed,
      });
      return { versions: versions.map(message), nextPageToken: pageToken(list, nextBefore?.toString()) };
    },

    async getVersion(req, context) {
      const name = { collection: collectionNameOf(req.collection), number: whichOf(req.which) };
      return { version: message(await getVersion(deps, callerOf(context.values), name)) };
    },

    async listSegmentDigests(req, context) {
      const from = pagePosition("digests", req.pageToken, /^\d{1,7}$/);
      const first = from === undefined ? 0 : Number(from);
      const { digests, nextFirst } = await listSegmentDigests(deps, callerOf(context.values), {
        collection: collectionNameOf(req.collection),
        number: whichOf(req.which),
        first,
        pageSize: pageSizeOf(req.pageSize, DIGESTS_PAGE),
      });
      return { firstIndex: first, sha256: digests, nextPageToken: pageToken("digests", nextFirst?.toString()) };
    },

    async *readVersion(req, context) {
      const input = {
        collection: collectionNameOf(req.collection),
        number: whichOf(req.which),
        offset: byteCountOf("offset_bytes", req.offsetBytes),
        limit: byteCountOf("limit_bytes", req.limitBytes),
      };
      const read = await readVersion(deps, callerOf(context.values), input, context.signal);
      const header = { version: message(read.version), offsetBytes: read.offset, lengthBytes: read.length };
      yield { frame: { case: "header" as const, value: header } };
      const outlet = outletOf(context.values);
      for await (const pieces of outlet === undefined ? single(read.body) : gathered(read.body)) {
        const caller = stillStanding(deps.config, callerOf(context.values), addressOf(context.values));
        requireDownload(deps.config, caller, input.collection);
        yield { frame: { case: "chunk" as const, value: outlet?.hold(pieces) ?? pieces[0]! } };
      }
    },

    async deleteVersion(req, context) {
      const name = { collection: collectionNameOf(req.collection), number: numberOf(req.number) };
      const { version, alreadyRemoved } = await deleteVersion(deps, callerOf(context.values), name);
      return { version: message(version), alreadyRemoved };
    },

    async undeleteVersion(req, context) {
      const name = { collection: collectionNameOf(req.collection), number: numberOf(req.number) };
      return { version: message(await undeleteVersion(deps, callerOf(context.values), name)) };
    },

    async confirmVersion(req, context) {
      const name = { collection: collectionNameOf(req.collection), number: numberOf(req.number) };
      return { version: message(await confirmVersion(deps, callerOf(context.values), name)) };
    },

    async holdVersion(req, context) {
      const reason = textOf("reason", req.reason, MAX_REASON_LENGTH);
      if (reason.trim() === "") throw invalidField("reason", "expected why the version is held, got nothing");
      const name = { collection: collectionNameOf(req.collection), number: numberOf(req.number), reason };
      return { version: message(await holdVersion(deps, callerOf(context.values), name)) };
    },

    async listKeys(req, context) {
      const collection = collectionNameOf(req.collection);
      const { keys, ...sets } = await listKeys(deps, callerOf(context.values), { collection, lost: lostOf(req.lost) });
      return {
        keys: keys.map(({ newest, ...use }) => ({ ...use, newestVersionNumber: newest })),
        unknown: versionSet(sets.unknown),
        lost: versionSet(sets.lost),
        uncertain: versionSet(sets.uncertain),
      };
    },

    async releaseVersion(req, context) {
      const name = { collection: collectionNameOf(req.collection), number: numberOf(req.number) };
      return { version: message(await releaseVersion(deps, callerOf(context.values), name)) };
    },
  };
}

const MOST_LOST = 32;
const MOST_NUMBERS = 1000;

/** Names of recipients, from names, key ids and fingerprints. */
function lostOf(values: readonly string[]): string[] {
  if (values.length > MOST_LOST) throw invalidField("lost", `expected at most ${MOST_LOST}, got ${values.length}`);
  return values.map((value, i) => {
    const name = recipientName(value.slice(0, 128));
    if (name !== undefined) return name;
    throw invalidField(
      `lost[${i}]`,
      "expected an OpenPGP key id or fingerprint, or a name as Version.recipients has it",
    );
  });
}

function versionSet(numbers: readonly bigint[]) {
  return { count: numbers.length, numbers: numbers.slice(0, MOST_NUMBERS) };
}

/** Bytes that go into one message, where they come in smaller pieces. */
const GATHERED_BYTES = 256 * 1024;

async function* single(body: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Uint8Array[]> {
  for await (const piece of body) if (piece.length > 0) yield [piece];
}

/** Pieces that are small, as a socket of a store gives them, several at once. */
async function* gathered(body: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Uint8Array[]> {
  let pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of body) {
    if (piece.length === 0) continue;
    pieces.push(piece);
    size += piece.length;
    if (size < GATHERED_BYTES) continue;
    yield pieces;
    pieces = [];
    size = 0;
  }
  if (size > 0) yield pieces;
}

/** Which version is meant: a number, or the newest. */
function whichOf(which: GetVersionRequest["which"]): bigint | "newest" {
  if (which.case === "number") return numberOf(which.value);
  if (which.case === "newest" && which.value) return "newest";
  const got = which.case === "newest" ? "newest: false" : "neither";
  throw invalidField("which", `expected the number of a version, from 1, or newest: true; got ${got}`);
}

/** The number of a version. */
function numberOf(value: bigint): bigint {
  if (value <= 0n) throw invalidField("number", `expected the number of a version, from 1, got ${value}`);
  return value;
}
