import type { SweepDeps } from "@strongroom/server/app/upkeep/sweep";
import { commitUpload } from "@strongroom/server/app/uploads/commit-upload";
import { createUpload } from "@strongroom/server/app/uploads/create-upload";
import { abortUpload, getUpload, renewUpload } from "@strongroom/server/app/uploads/manage-uploads";
import { BodyBrokenError } from "@strongroom/server/app/uploads/segment-body";
import { writeSegment } from "@strongroom/server/app/uploads/write-segment";
import type { Principal } from "@strongroom/server/domain/access";
import type { Reason } from "@strongroom/server/domain/errors";
import { chunked, compositeOf, cutSegments, type TestSegment } from "@strongroom/testkit/ciphertext";
import type { FaultKind } from "./faults.ts";
import type { Intent } from "./oracle.ts";
import type { Ending, World } from "./world.ts";

/** What a client's message is. */
export type MessageKind = "whole" | "plaintext" | "truncated message";

/** How a segment is sent wrongly. */
const WRONG_WAYS = [
  "wrong bytes",
  "wrong size",
  "body broke off",
  "oversized chunk",
] as const satisfies readonly FaultKind[];
type WrongWay = (typeof WRONG_WAYS)[number];

/** Refusals and failures that any call of an upload may meet. */
const EVER: readonly Reason[] = ["STORE_UNAVAILABLE", "DATABASE_UNAVAILABLE"];
const NO_ROOM: readonly Reason[] = ["COLLECTION_BUSY", "QUOTA_EXCEEDED", "ROTATION_BLOCKED", "UPLOAD_TOO_OLD"];

/**
 * One backup: a message on its way into a collection, over any server, with everything that can go wrong on the
 * client's side.
 */
export class Client implements Intent {
  readonly isWhole: boolean;
  readonly size: number;
  readonly collection: string;
  readonly message: Uint8Array;
  askedToCommit = false;
  mayBeRefused: boolean;
  /** The upload ended without a version, or the client gave up. */
  over = false;
  /** The number of the version that was acknowledged. */
  acknowledged: number | undefined;
  uploadId: string | undefined;
  readonly #world: World;
  readonly #kind: MessageKind;
  readonly #name: string;
  readonly #requestId: string;
  readonly #acked = new Set<number>();
  /** Servers on which a segment is under way, by index. */
  readonly #writing = new Map<number, number[]>();
  #segments: readonly TestSegment[] = [];
  #creating = 0;
  #committing = 0;
  #abortAsked = false;

  constructor(world: World, name: string, collection: string, message: Uint8Array, kind: MessageKind) {
    this.#world = world;
    this.#name = name;
    this.#requestId = name;
    this.collection = collection;
    this.message = message;
    this.size = message.length;
    this.#kind = kind;
    this.isWhole = kind === "whole";
    this.mayBeRefused = !this.isWhole;
  }

  /** Whether every segment is acknowledged. */
  get isSent(): boolean {
    return this.uploadId !== undefined && this.#acked.size === this.#segments.length;
  }

  /** Does something that a client may do now, wise or not. */
  async act(): Promise<void> {
    const { random } = this.#world;
    if (this.uploadId === undefined) {
      if (this.#creating === 0 || random.chance(0.1)) await this.create();
      return;
    }
    const action = random.weighted([
      [this.isSent ? 1 : 10, () => this.send()],
      [this.isSent ? 12 : 0.3, () => this.commit()],
      [0.4, () => this.create()],
      [0.5, () => this.#sendWrongly(random.pick(WRONG_WAYS))],
      [0.5, () => this.#renew()],
      [0.4, () => this.#look()],
      [0.2, () => this.#commitWrongly()],
      [this.#committing === 0 ? 0.15 : 0.05, () => this.abort()],
    ] as const);
    await action();
  }

  /** Asks for an upload, or for the same again. */
  async create(): Promise<void> {
    if (this.#creating > 0 || this.uploadId !== undefined) this.#world.faults.count("request id repeated");
    this.#creating++;
    await this.#call(
      "create",
      (deps, by) =>
        createUpload(deps, by, {
          collection: this.collection,
          requestId: this.#requestId,
          expectedSize: 0n,
          filename: "",
          contentEncoding: "none",
          labels: {},
          clientMetadata: {},
        }),
      (ending) => {
        this.#creating--;
        this.#expect("create", ending, [...EVER, ...NO_ROOM]);
        if (ending.value === undefined) return;
        const { upload } = ending.value;
        if (this.uploadId !== undefined && this.uploadId !== upload.id) {
          // After a week the same request id means another upload; this client stays with its first.
          const first = this.#world.oracle.rows.uploads.find((u) => u.id === this.uploadId);
          const age = this.#world.clock.now.getTime() - first!.begun;
          if (age < this.#world.settings.requestIdMs) this.#world.fail(`a request id gave two uploads: ${this.#name}`);
          return;
        }
        this.uploadId = upload.id;
        if (this.#segments.length === 0) this.#segments = cutSegments(this.message, Number(upload.segmentSize));
        if (upload.state === "aborted" || upload.state === "expired") this.over = true;
      },
    );
  }

  /** Sends a segment that is not acknowledged, also one that is under way. */
  async send(): Promise<void> {
    const { random } = this.#world;
    const idle = random.chance(0.7);
    const unsent = this.#segments.filter((s) => !this.#acked.has(s.index));
    const notUnderWay = unsent.filter((s) => (this.#writing.get(s.index)?.length ?? 0) === 0);
    const missing = idle && notUnderWay.length > 0 ? notUnderWay : unsent;
    const segment = missing.length > 0 && random.chance(0.95) ? random.pick(missing) : random.pick(this.#segments);
    const bare = random.chance(0.1);
    const announced = bare ? { ...segment, framingIn: new Uint8Array() } : segment;
    const reasons: Reason[] = [...EVER, ...NO_ROOM, "UPLOAD_NOT_OPEN", "SEGMENT_SUPERSEDED"];
    if (bare) reasons.push("PREVIOUS_SEGMENT_MISSING");
    await this.#write(announced, chunked(segment.bytes, random.pick([1024 * 1024, 400_000])), reasons, (ending) => {
      if (ending.value !== undefined) this.#acked.add(segment.index);
    });
  }

  /** Asks for the version. */
  async commit(): Promise<void> {
    const { faults } = this.#world;
    if (!this.isSent) faults.count("early commit");
    if (this.acknowledged !== undefined) faults.count("commit repeated");
    else if (this.#committing > 0 && this.#world.replicas > 1) faults.count("commit on two servers at once");
    this.askedToCommit = true;
    this.#committing++;
    const wasSent = this.isSent;
    const input = { uploadId: this.uploadId!, size: BigInt(this.size), compositeSha256: compositeOf(this.#segments) };
    await this.#call(
      "commit",
      (deps, by) => commitUpload(deps, by, input),
      (ending) => {
        this.#committing--;
        const reasons: Reason[] = [...EVER, ...NO_ROOM, "UPLOAD_NOT_OPEN"];
        if (!wasSent) reasons.push("SEGMENTS_INCOMPLETE", "UPLOAD_EMPTY", "COMMIT_MISMATCH");
        this.#expect("commit", ending, reasons);
        if (ending.value === undefined) return;
        const number = Number(ending.value.version.number);
        if (this.acknowledged !== undefined && this.acknowledged !== number) {
          this.#world.fail(`${this.#name} was acknowledged as ${this.acknowledged} and as ${number}`);
        }
        this.acknowledged = number;
        if (ending.value.version.id !== this.uploadId) this.#world.fail(`${this.#name} got another upload's version`);
      },
    );
  }

  /** Gives up. */
  async abort(): Promise<void> {
    this.#world.faults.count("abort");
    this.#abortAsked = true;
    await this.#call(
      "abort",
      (deps, by) => abortUpload(deps, by, { uploadId: this.uploadId!, reason: "" }),
      (ending) => {
        this.#expect("abort", ending, [...EVER, "UPLOAD_NOT_OPEN"]);
        if (ending.value !== undefined) this.over = true;
      },
      this.uploadId,
    );
  }

  async #sendWrongly(way: WrongWay): Promise<void> {
    const { random, faults } = this.#world;
    const segment = random.pick(this.#segments);
    if (this.#acked.has(segment.index)) return;
    faults.count(way);
    const reasons: Reason[] = [...EVER, ...NO_ROOM, "UPLOAD_NOT_OPEN", "SEGMENT_SUPERSEDED"];
    reasons.push("SEGMENT_DIGEST_MISMATCH", "SEGMENT_SIZE_MISMATCH", "SEGMENT_FRAMES_INVALID");
    const { bytes } = segment;
    let body: AsyncIterable<Uint8Array>;
    if (way === "body broke off") body = breaking(bytes.subarray(0, random.int(0, bytes.length - 1)));
    else if (way === "wrong size") body = chunked(bytes.subarray(0, -1));
    else if (way === "oversized chunk")
      body = chunked(Buffer.concat([bytes, bytes, Buffer.alloc(1_100_000)]), 4_000_000);
    else {
      const other = Uint8Array.from(bytes);
      other[other.length - 1]! ^= 1;
      body = chunked(other);
    }
    await this.#write(segment, body, reasons, () => {});
  }

  async #commitWrongly(): Promise<void> {
    this.#world.faults.count("wrong commit");
    const input = {
      uploadId: this.uploadId!,
      size: BigInt(this.size) - 1n,
      compositeSha256: compositeOf(this.#segments),
    };
    await this.#call(
      "wrong commit",
      (deps, by) => commitUpload(deps, by, input),
      (ending) => {
        if (ending.value !== undefined) this.#world.fail("a wrong commit was acknowledged");
        this.#expect("wrong commit", ending, [
          ...EVER,
          ...NO_ROOM,
          "COMMIT_MISMATCH",
          "SEGMENTS_INCOMPLETE",
          "UPLOAD_EMPTY",
          "UPLOAD_NOT_OPEN",
        ]);
      },
    );
  }

  async #renew(): Promise<void> {
    await this.#call(
      "renew",
      (deps, by) => renewUpload(deps, by, this.uploadId!),
      (ending) => this.#expect("renew", ending, [...EVER, ...NO_ROOM, "UPLOAD_NOT_OPEN"]),
    );
  }

  async #look(): Promise<void> {
    const before = [...this.#acked];
    await this.#call(
      "look",
      (deps, by) => getUpload(deps, by, { uploadId: this.uploadId!, fromIndex: 0, pageSize: 100 }),
      (ending) => {
        this.#expect("look", ending, EVER);
        if (ending.value?.upload.state !== "open") return;
        const stored = new Set(ending.value.segments.map((s) => s.index));
        for (const index of before) {
          if (!stored.has(index))
            this.#world.fail(`${this.#name}: segment ${index} was acknowledged and is not listed`);
        }
        for (const index of stored) this.#acked.add(index);
      },
    );
  }

  async #write(
    segment: TestSegment,
    body: AsyncIterable<Uint8Array>,
    reasons: readonly Reason[],
    ended: (ending: Ending<unknown>) => void,
  ): Promise<void> {
    const { faults } = this.#world;
    const under = this.#writing.get(segment.index) ?? [];
    this.#writing.set(segment.index, under);
    const replica = this.#replica();
    if (under.some((other) => other !== replica)) faults.count("segment superseded across servers");
    under.push(replica);
    await this.#call(
      `write ${segment.index}`,
      (deps, by) =>
        writeSegment(deps, by, { uploadId: this.uploadId!, ...segment }, body, new AbortController().signal),
      (ending) => {
        under.splice(under.indexOf(replica), 1);
        const allowed = [...reasons];
        if (!this.isWhole) allowed.push("CIPHERTEXT_REFUSED", "FRAMING_STATE_INVALID");
        this.#expect("write", ending, allowed);
        // The words of the settlement, not of the supersession on the same server.
        if (ending.error !== undefined && /at segment \d+ took over/.test(ending.error.message)) {
          faults.count("superseded attempt woke up late");
        }
        ended(ending);
      },
      undefined,
      replica,
    );
  }

  #replica(): number {
    return this.#world.random.int(0, this.#world.replicas - 1);
  }

  async #call<T>(
    name: string,
    work: (deps: SweepDeps, by: Principal) => Promise<T>,
    ended: (ending: Ending<T>) => void,
    aborts?: string,
    replica = this.#replica(),
  ): Promise<void> {
    const needsRoom = { needsRoomIn: this.collection, upload: this.uploadId };
    const cause = aborts === undefined ? needsRoom : { ...needsRoom, aborts };
    await this.#world.begin({ name: `${this.#name} ${name}`, replica, cause, upload: this }, work, ended);
  }

  /** Fails the scenario when a call ended in a way it must not; notes when the upload is over. */
  #expect(what: string, ending: Ending<unknown>, reasons: readonly Reason[]): void {
    const reason = reasonOf(ending);
    if (reason === undefined) return;
    if (reason === "CIPHERTEXT_REFUSED" && this.#kind !== "whole") {
      this.over = true;
      this.#world.faults.count(this.#kind);
      return;
    }
    if (!reasons.includes(reason)) this.#world.fail(`${this.#name} ${what}: ${reason}: ${ending.error!.message}`);
    if (reason === "UPLOAD_TOO_OLD") this.#tooOld(what);
    if (reason !== "UPLOAD_NOT_OPEN") return;
    const row = this.#world.oracle.rows.uploads.find((u) => u.id === this.uploadId);
    if (row === undefined || row.state === "open")
      this.#world.fail(`${this.#name} ${what}: refused as not open, but its row is ${row?.state}`);
    if (row?.state === "aborted" || row?.state === "expired") this.over = true;
    if (row?.state === "aborted" && !this.#abortAsked && !this.mayBeRefused)
      this.#world.fail(`${this.#name} was aborted: ${row.reason}`);
  }

  #tooOld(what: string): void {
    const { oracle, clock, settings } = this.#world;
    const row = oracle.rows.uploads.find((u) => u.id === this.uploadId);
    // The clock may have gone back since.
    const slack = 24 * 3_600_000;
    if (row !== undefined && clock.now.getTime() - row.begun < settings.maxUploadAgeMs - slack)
      this.#world.fail(`${this.#name} ${what}: refused as too old`);
  }
}

function reasonOf(ending: Ending<unknown>): Reason | undefined {
  return ending.error !== undefined && "reason" in ending.error ? ending.error.reason : undefined;
}

async function* breaking(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  if (bytes.length > 0) yield* chunked(bytes);
  throw new BodyBrokenError("the connection is gone");
}
