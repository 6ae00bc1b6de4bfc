import { formatDuration } from "@strongroom/protocol/sizes";
import { formatTimeIn } from "@strongroom/protocol/times";
import type { CollectionSpec } from "../../domain/configuration.ts";
import { DomainError } from "../../domain/errors.ts";
import { clockDoubt } from "../clock-doubt.ts";
import type { Transaction, UploadRow } from "../ports/database.ts";
import type { UploadSettings } from "../settings.ts";

type Aged = Pick<UploadRow, "id" | "begunAt">;
type AgeLimit = Pick<CollectionSpec, "maxUploadAgeMs" | "timezone"> | undefined;
type AgeSettings = Pick<UploadSettings, "maxUploadAgeMs">;

/** When an upload must have become a version. No sign of life moves it. */
export function lastMoment(upload: Pick<UploadRow, "begunAt">, spec: AgeLimit, settings: AgeSettings): Date {
  return new Date(upload.begunAt.getTime() + (spec?.maxUploadAgeMs ?? settings.maxUploadAgeMs));
}

/** Why an upload ended that did not become a version in time. */
export function tooOldReason(spec: AgeLimit, settings: AgeSettings): string {
  return (
    `it did not become a version within ${formatDuration(spec?.maxUploadAgeMs ?? settings.maxUploadAgeMs)}, ` +
    "maxUploadAge"
  );
}

/**
 * Refuses an upload that did not become a version in time. Not while the clock is in doubt: a leap must not end what is
 * under way.
 * @throws DomainError UPLOAD_TOO_OLD, which is final.
 */
export async function requireYoung(
  tx: Transaction,
  upload: Aged,
  spec: AgeLimit,
  settings: AgeSettings,
): Promise<void> {
  if (tx.now < lastMoment(upload, spec, settings)) return;
  if ((await clockDoubt(tx)) !== undefined) return;
  throw new DomainError(
    "UPLOAD_TOO_OLD",
    `upload ${upload.id} was begun ${formatTimeIn(upload.begunAt, spec?.timezone ?? "")}; ${tooOldReason(spec, settings)}. Create a ` +
      "new upload",
    {
      metadata: {
        begun_at: upload.begunAt.toISOString(),
        max_upload_age: formatDuration(spec?.maxUploadAgeMs ?? settings.maxUploadAgeMs),
      },
    },
  );
}
