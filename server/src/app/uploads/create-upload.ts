import { createHash } from "node:crypto";
import { formatTimeIn } from "@strongroom/protocol/times";
import { mayDo, type Principal } from "../../domain/access.ts";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { objectKey } from "../../domain/object-keys.ts";
import { maxUploadSize, quotaLimits } from "../../domain/quota.ts";
import { chooseSegmentSize } from "../../domain/segments.ts";
import type { ContentEncoding } from "../../domain/version.ts";
import { nextWindowStart, openWindow } from "../../domain/window.ts";
import { requireAction, requireWritable } from "../guards.ts";
import { pinned } from "../ports/config-source.ts";
import type { Transaction, UploadRow } from "../ports/database.ts";
import { requireFewUploads, requireOpenOrganization, requirePace } from "./admission.ts";
import { withRoom } from "./clean-upload.ts";
import { endUpload, leaseFrom, lockCollection, requirePlace, storedBytesOf } from "./reservations.ts";
import { type LockedCollection, RoomTakenError, requireRoom, roomFor } from "./room.ts";
import { storeFailure } from "./store-failure.ts";
import { lastMoment } from "./upload-age.ts";
import type { UploadDeps, UploadView } from "./upload-deps.ts";

/** What a client asks for; shapes are checked by transport. */
export interface CreateUploadInput {
  readonly collection: string;
  readonly requestId: string;
  /** Bytes; 0 when unknown. */
  readonly expectedSize: bigint;
  readonly filename: string;
  readonly contentEncoding: ContentEncoding;
  readonly labels: Record<string, string>;
  readonly clientMetadata: Record<string, string>;
}

/** What may be created; the encoding is undefined while the client does not know it. */
export type CheckUploadInput = Omit<CreateUploadInput, "contentEncoding"> & {
  readonly contentEncoding: ContentEncoding | undefined;
};

/** Name of the only storage so far; rows carry it so that several can come. */
const STORAGE = "default";

/** Starts an upload, or returns the one that the same request started before. */
export async function createUpload(
  deps: UploadDeps,
  principal: Principal,
  input: CreateUploadInput,
): Promise<UploadView> {
  await requireWritable(deps, principal, input.collection, "upload");
  const view = await withRoom(deps, async (tx) => {
    const admission = await admitNow(tx, deps, principal, { ...input, onlyLooks: false });
    return admission.known ?? (await register(tx, principal, input, admission));
  });
  if (view.upload.storeToken !== null || view.upload.state !== "open") return view;
  return { ...view, upload: await begin(deps, view.upload) };
}

/**
 * Refuses what {@link createUpload} would refuse now, but for a store that fails. Writes nothing: whatever the same
 * code would write is rolled back, and what gives way to an upload stays. Returns the bytes that would be accepted.
 */
export async function checkUpload(deps: UploadDeps, principal: Principal, input: CheckUploadInput): Promise<bigint> {
  await requireWritable(deps, principal, input.collection, "upload");
  try {
    return await deps.database.transaction<never>(async (tx) => {
      const { known, remaining } = await admitNow(tx, deps, principal, { ...input, onlyLooks: true });
      throw new LookedError(known?.remaining ?? remaining);
    });
  } catch (error) {
    if (error instanceof LookedError) return error.remaining;
    throw error;
  }
}

/** Rolls back the transaction in which it was only looked. */
class LookedError extends Error {
  override name = "LookedError";
  readonly remaining: bigint;

  constructor(remaining: bigint) {
    super("it was only looked");
    this.remaining = remaining;
  }
}

/** What was found out about an upload that may be created. */
interface Admission {
  readonly at: UploadDeps;
  readonly spec: CollectionSpec;
  readonly collection: LockedCollection;
  /** The upload that the same request created before. */
  readonly known: UploadView | undefined;
  /** Bytes that would be accepted. */
  readonly remaining: bigint;
}

/** Whether it may be created, by the configuration as it is now: it may have changed while this waited for its turn. */
async function admitNow(
  tx: Transaction,
  deps: UploadDeps,
  principal: Principal,
  input: CheckUploadInput & { readonly onlyLooks: boolean },
): Promise<Admission> {
  const at = pinned(deps);
  const spec = requireAction(at.config, principal, input.collection, "upload");
  return { at, spec, ...(await admit(tx, at, principal, spec, input)) };
}

async function admit(
  tx: Transaction,
  deps: UploadDeps,
  principal: Principal,
  spec: CollectionSpec,
  input: CheckUploadInput & { readonly onlyLooks: boolean },
): Promise<Omit<Admission, "at" | "spec">> {
  const collection = await lockCollection(tx, { name: spec.name });
  if (input.requestId !== "") {
    const since = new Date(tx.now.getTime() - deps.settings.requestIdMs);
    // One that failed before the store took it binds its id to nothing: the caller was asked to repeat the call.
    const known = await tx.uploads.findByRequest(
      { collectionId: collection.row.id, requestId: input.requestId, ...ownerOf(principal) },
      since,
    );
    if (known !== undefined) {
      if (!digestsOf(input).includes(known.requestDigest)) {
        throw new DomainError(
          "REQUEST_ID_REUSED",
          `request id "${input.requestId}" was used for another upload to "${spec.name}"; give every backup an ` +
            "id of its own",
        );
      }
      const storedBytes = await storedBytesOf(tx, known);
      if (known.state !== "open")
        return { collection, known: { upload: known, remaining: 0n, storedBytes }, remaining: 0n };
      const room = await roomFor(tx, deps.config, spec, collection, known.id);
      const remaining = atLeastZero(room.total - known.reservedBytes);
      return { collection, known: { upload: known, remaining, storedBytes }, remaining };
    }
  }
  await deps.disk?.require(input.expectedSize);
  await requireOpenOrganization(tx, spec);
  requireOpenWindow(spec, principal, tx.now);
  await requireFewUploads(tx, spec, deps.settings, collection);
  await requirePace(tx, spec, deps.settings, collection, tx.now);
  requirePlace(tx, spec, collection, undefined);
  const room = await roomFor(tx, deps.config, spec, collection, undefined);
  try {
    requireRoom(tx, collection, undefined, room, 0n, input.expectedSize > 0n ? input.expectedSize : 1n);
  } catch (error) {
    // What gives way is deleted for an upload, and not for a look.
    if (!(input.onlyLooks && error instanceof RoomTakenError)) throw error;
  }
  return { collection, known: undefined, remaining: room.total };
}

const ownerOf = ({ user, accessKey }: Principal) => ({ userName: user.name, accessKey });

async function register(
  tx: Transaction,
  principal: Principal,
  input: CreateUploadInput,
  { at: deps, spec, collection, remaining }: Admission,
): Promise<UploadView> {
  const id = deps.newId();
  const maxSize = maxUploadSize(quotaLimits(spec));
  const upload = await tx.uploads.insert({
    id,
    collectionId: collection.row.id,
    collectionName: spec.name,
    organization: spec.organization,
    storage: STORAGE,
    key: objectKey(spec.name, id),
    storeToken: null,
    state: "open",
    ...ownerOf(principal),
    sessionId: principal.sessionId,
    requestId: input.requestId,
    requestDigest: digestOf(input),
    filename: input.filename,
    contentEncoding: input.contentEncoding,
    labels: input.labels,
    clientMetadata: input.clientMetadata,
    segmentSize: chooseSegmentSize(maxSize, deps.settings.leastSegmentSize, deps.store.capabilities),
    maxSize,
    reservedBytes: 0n,
    lapsed: false,
    ...leaseFrom(tx.now, deps.settings, lastMoment({ begunAt: tx.now }, spec, deps.settings)),
    begunAt: tx.now,
    endedAt: null,
    abortReason: "",
    versionNumber: null,
    usualSize: null,
    cleanedAt: null,
    completingUntil: null,
    lostSince: null,
  });
  await tx.audit({
    kind: "upload.created",
    actor: principal,
    collectionName: spec.name,
    object: id,
    details: { upload_id: id, expected_size: String(input.expectedSize), request_id: input.requestId },
  });
  return { upload, remaining, storedBytes: 0n };
}

function requireOpenWindow(spec: CollectionSpec, principal: Principal, now: Date): void {
  if (spec.windows.length === 0 || openWindow(spec.windows, spec.timezone, now) !== undefined) return;
  if (mayDo(principal, spec, "upload-anytime")) return;
  const next = nextWindowStart(spec.windows, spec.timezone, now);
  const when = next === undefined ? "and none is to come" : `the next one opens ${formatTimeIn(next, spec.timezone)}`;
  throw new DomainError("WINDOW_CLOSED", `no upload window of "${spec.name}" is open now; ${when}`, {
    metadata: next === undefined ? {} : { next_window_at: next.toISOString(), timezone: spec.timezone },
  });
}

/** Asks the store for the unfinished object. The row exists already, so no crash leaves an unrecorded object. */
async function begin(deps: UploadDeps, upload: UploadRow): Promise<UploadRow> {
  let token: string;
  try {
    token = await deps.store.begin(upload.key, upload.id);
  } catch (error) {
    await deps.database.transaction(async (tx) => {
      await tx.collections.lockById(upload.collectionId);
      const current = await tx.uploads.find(upload.id);
      if (current?.state === "open" && current.storeToken === null) {
        await endUpload(tx, current, "aborted", "the object store failed when the upload was created");
      }
    });
    throw notBegun(error);
  }
  const current = await deps.database.transaction(async (tx) => {
    await tx.collections.lockById(upload.collectionId);
    const noted = await tx.uploads.noteToken(upload.id, token);
    return noted ?? (await tx.uploads.find(upload.id))!;
  });
  // A second call with the same request id may have been faster; its unfinished object is the one.
  if (current.storeToken !== token) await deps.store.abort({ key: upload.key, token }).catch(() => {});
  // It failed for that other call, which ended it.
  if (current.storeToken === null) throw notBegun(undefined);
  return current;
}

function notBegun(cause: unknown): DomainError {
  return storeFailure("the object store failed; repeat the call in a moment", cause, 1000);
}

/** The digests of every request that this may become. */
function digestsOf({ contentEncoding, ...input }: CheckUploadInput): string[] {
  const encodings = contentEncoding === undefined ? (["none", "zstd"] as const) : [contentEncoding];
  return encodings.map((contentEncoding) => digestOf({ ...input, contentEncoding }));
}

function digestOf(input: CreateUploadInput): string {
  const sorted = (map: Record<string, string>) => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
  const content = [
    input.collection,
    String(input.expectedSize),
    input.filename,
    input.contentEncoding,
    sorted(input.labels),
    sorted(input.clientMetadata),
  ];
  return createHash("sha256").update(JSON.stringify(content)).digest("hex");
}

/** The number, or 0 when it is negative. */
export function atLeastZero(value: bigint): bigint {
  return value > 0n ? value : 0n;
}
