import { Readable } from "node:stream";
import type { VersionRow } from "../../app/ports/database.ts";
import { stillStanding } from "../../app/sessions/sessions.ts";
import {
  getVersion,
  listSegmentDigests,
  readVersion,
  requireDownload,
  type VersionDeps,
} from "../../app/versions/versions.ts";
import { callerOf } from "../../calls/call.ts";
import type { Metrics } from "../../calls/metrics.ts";
import { DomainError } from "../../domain/errors.ts";
import { type ApiAnswer, refusal } from "./answers.ts";
import type { ApiCall, ApiRoute } from "./api-call.ts";
import { type ByteRange, parseRange } from "./byte-range.ts";
import { collectionWording } from "./wording.ts";

/** The ports of downloads over the HTTP API. */
export interface DownloadRouteDeps extends VersionDeps {
  readonly metrics: Metrics | undefined;
}

const DENIED = "not authorized to download versions from this collection";

/** Downloads, whole or a range. */
export function downloadRoute(deps: DownloadRouteDeps): ApiRoute {
  return {
    answer: async (apiCall) => await download(deps, apiCall),
    wording:
      ({ call, params }) =>
      (error) =>
        error instanceof DomainError && error.reason === "VERSION_NOT_FOUND"
          ? { status: 404, error: `cannot find specified version: ${error.message}` }
          : collectionWording(error, call, params.id!, DENIED),
  };
}

async function download(deps: DownloadRouteDeps, { call, params, req, signal }: ApiCall): Promise<ApiAnswer> {
  const principal = callerOf(call);
  const collection = params.id!;
  requireDownload(deps.config, principal, collection);
  const asked = { collection, number: numberOf(params.n!, collection) };
  const version = await getVersion(deps, principal, asked);
  const etag = `"${hex(version)}"`;
  const ifRange = req.headers["if-range"];
  const range = ifRange === undefined || ifRange === etag ? parseRange(req.headers.range, version.size) : "whole";
  const headers = {
    "accept-ranges": "bytes",
    etag,
    "strongroom-composite-sha256": hex(version),
    "strongroom-segment-size": String(version.segmentSize),
    ...(await wholeDigest(deps, principal, version)),
  };
  if (range === "none") {
    const message = `expected a range within the ${version.size} bytes of version ${version.number}`;
    return refusal(416, message, { code: "out_of_range", headers: { "content-range": `bytes */${version.size}` } });
  }
  const { offset, length } = range === "whole" ? { offset: 0n, length: version.size } : range;
  const head = {
    status: range === "whole" ? 200 : 206,
    headers: {
      ...headers,
      "content-type": "application/octet-stream",
      "content-length": String(length),
      "content-disposition": disposition(version.filename),
      ...(range === "whole" ? {} : { "content-range": contentRange(range, version.size) }),
    },
    code: "ok",
    message: "",
  } as const;
  // Nothing is read for it, and so nothing noted as read.
  if (req.method === "HEAD") return { ...head, body: Readable.from([]) };
  // By its number: the newest may be another one by now.
  const read = await readVersion(
    deps,
    principal,
    { collection, number: version.number, offset, limit: length },
    signal,
  );
  return { ...head, body: counted(deps, { call, params }, await begun(read.body)) };
}

/** The bytes, for as long as the caller may have them. */
async function* counted(
  deps: DownloadRouteDeps,
  { call, params }: Pick<ApiCall, "call" | "params">,
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    requireDownload(deps.config, stillStanding(deps.config, callerOf(call), call.address), params.id!);
    deps.metrics?.sent(chunk.length);
    if (chunk.length > 0) yield chunk;
  }
}

/** A body of which the first piece has come, so that what the store refuses at once can still be answered. */
async function begun(body: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const iterator = body[Symbol.asyncIterator]();
  const first = await iterator.next();
  return (async function* () {
    try {
      for (let next = first; next.done !== true; next = await iterator.next()) yield next.value;
    } finally {
      void iterator.return?.().catch(() => {});
    }
  })();
}

/** `latest`, `7` or `v7`. */
function numberOf(text: string, collection: string): bigint | "newest" {
  if (text === "latest") return "newest";
  const number = /^v?([1-9]\d{0,17})$/.exec(text)?.[1];
  if (number !== undefined) return BigInt(number);
  throw new DomainError("VERSION_NOT_FOUND", `expected latest, or a number such as 7 or v7, got "${text}"`, {
    metadata: { collection },
  });
}

const hex = ({ compositeSha256 }: VersionRow) => Buffer.from(compositeSha256).toString("hex");

/** The digest of the whole (RFC 9530), which the server knows of versions of one segment. */
async function wholeDigest(
  deps: VersionDeps,
  principal: Parameters<typeof listSegmentDigests>[1],
  { collectionName: collection, number, segmentCount }: VersionRow,
): Promise<Readonly<Record<string, string>>> {
  if (segmentCount !== 1) return {};
  const { digests } = await listSegmentDigests(deps, principal, { collection, number, first: 0, pageSize: 1 });
  return { "repr-digest": `sha-256=:${Buffer.from(digests[0]!).toString("base64")}:` };
}

/** RFC 6266: the name in ASCII for old clients, and as it is where that differs. */
function disposition(filename: string): string {
  const ascii = filename.replace(/[^\x20-\x7e]|["\\]/g, "_");
  if (ascii === filename) return `attachment; filename="${filename}"`;
  const encoded = encodeURIComponent(filename).replace(
    /['()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}

const contentRange = ({ offset, length }: ByteRange, size: bigint) => `bytes ${offset}-${offset + length - 1n}/${size}`;
