import { formatSize, parseDuration, parseSize, quoted, ValueError } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../domain/configuration.ts";
import { DEFAULT_REMOVAL_SHARE } from "../domain/policy-guard.ts";
import { maxUploadSize, type QuotaLimits } from "../domain/quota.ts";
import { DEFAULT_SHRUNK_FACTOR } from "../domain/shrunk.ts";
import { suggestion } from "./names.ts";
import type { ObjectNode } from "./node.ts";

/** The fields of a collection that guard what is stored: against too old, too small, too many and too early. */
export type CollectionGuards = Pick<
  CollectionSpec,
  | "maxAgeMs"
  | "maxUploadAgeMs"
  | "maxVersionsPerWindow"
  | "minIntervalMs"
  | "minRetentionMs"
  | "minVersionSize"
  | "removalShare"
  | "rotationGuard"
  | "shrunkFactor"
  | "trashRetentionMs"
>;

const MAX_PER_WINDOW = 1_000_000;
const MAX_FACTOR = 1_000_000;
const MIN_TRASH_MS = 24 * 3_600_000;

/**
 * Reads the guards of a collection's `spec`.
 * @param limits its limits; undefined where they are wrong.
 */
export function readGuards(spec: ObjectNode, limits: QuotaLimits | undefined, hasWindows: boolean): CollectionGuards {
  const maxAgeMs = spec.get("maxAge")?.parsed(positiveDuration);
  const shrunkFactor = readShrunkFactor(spec);
  return {
    maxAgeMs,
    minRetentionMs: spec.get("minRetention")?.parsed(positiveDuration),
    trashRetentionMs: spec.get("trashRetention")?.parsed(trashDuration),
    minVersionSize: readMinVersionSize(spec, limits),
    minIntervalMs: readMinInterval(spec, maxAgeMs),
    maxVersionsPerWindow: readVersionsPerWindow(spec, hasWindows),
    shrunkFactor,
    rotationGuard: readRotationGuard(spec, shrunkFactor),
    maxUploadAgeMs: spec.get("maxUploadAge")?.parsed(positiveDuration),
    removalShare: spec.get("confirmRemovalsAbove")?.parsed(share) ?? DEFAULT_REMOVAL_SHARE,
  };
}

/** A part of a whole, from 0 to 1. */
function share(text: string): number {
  const percent = /^(\d{1,3})\s*%$/.exec(text)?.[1];
  if (percent === undefined || Number(percent) > 100)
    throw new ValueError(`expected a share from 0% to 100% (never), such as 50%, got ${quoted(text)}`);
  return Number(percent) / 100;
}

function positiveDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms === 0)
    throw new ValueError(`expected a duration above zero, got ${quoted(text)}; leave the field out for none`);
  return ms;
}

/** Running downloads of a removed version are promised a day. */
function trashDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms < MIN_TRASH_MS)
    throw new ValueError(`expected a duration of at least 24h, got ${quoted(text)}; leave the field out for 24h`);
  return ms;
}

function readMinVersionSize(spec: ObjectNode, limits: QuotaLimits | undefined): bigint {
  const node = spec.get("minVersionSize");
  const least = node?.parsed(parseSize) ?? 0n;
  if (limits === undefined) return least;
  const most = maxUploadSize(limits);
  if (least > most) {
    node?.error(
      `expected at most what one version may have, ${formatSize(most)} (maxOneVersionSize and the extra space), got ` +
        formatSize(least),
    );
  }
  return least;
}

function readMinInterval(spec: ObjectNode, maxAgeMs: number | undefined): number | undefined {
  const node = spec.get("minInterval");
  const ms = node?.parsed(positiveDuration);
  if (ms !== undefined && maxAgeMs !== undefined && ms >= maxAgeMs)
    node?.warn("it is not shorter than maxAge, so that the age check fails before the next version may come");
  return ms;
}

function readVersionsPerWindow(spec: ObjectNode, hasWindows: boolean): number | undefined {
  const node = spec.get("maxVersionsPerWindow");
  const most = node?.integer(1, MAX_PER_WINDOW);
  if (most !== undefined && !hasWindows)
    node?.warn("it has no effect without windows; minInterval limits how often versions come");
  return most;
}

/** Above 1, or 0 for none. */
function parseFactor(text: string): number | undefined {
  const factor = /^\d{1,9}(\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
  if (factor === 0) return undefined;
  if (factor > 1 && factor <= MAX_FACTOR) return factor;
  throw new ValueError(
    `expected a number above 1 and at most ${MAX_FACTOR}, or 0 for no check, got ${text === "" || /[^\d.-]/.test(text) ? quoted(text) : text}`,
  );
}

function readShrunkFactor(spec: ObjectNode): number | undefined {
  const node = spec.get("shrunkFactor");
  return node === undefined ? DEFAULT_SHRUNK_FACTOR : node.parsed(parseFactor);
}

function readRotationGuard(spec: ObjectNode, shrunkFactor: number | undefined): "shrunk" | undefined {
  const node = spec.get("rotationGuard");
  const name = node?.text();
  if (node === undefined || name === undefined) return undefined;
  if (name !== "shrunk") {
    node.error(`expected shrunk, got ${quoted(name)}${suggestion(name, ["shrunk"])}; leave the field out for none`);
    return undefined;
  }
  if (shrunkFactor === undefined)
    node.error("expected a shrunkFactor above 1 beside it, got 0, so that no version is ever shrunk");
  return "shrunk";
}
