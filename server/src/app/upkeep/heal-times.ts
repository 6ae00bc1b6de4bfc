import type { Database } from "../ports/database.ts";
import type { Log, UploadSettings } from "../settings.ts";
import { HOLD_MS } from "../uploads/lost-upload.ts";

/**
 * Writes ends again that are further ahead than their own duration: a clock that was ahead for a while wrote them, and
 * they would come that much too late. They are counted from now, once. So are times that should be past and that
 * something is counted from. Budgets of logins, claims of verifications, signing keys and what belongs to notifications
 * are mended where they are used.
 */
export async function healTimes(deps: {
  readonly database: Database;
  readonly settings: UploadSettings;
  readonly log: Log;
}): Promise<void> {
  const healed = await deps.database.transaction(async (tx) => ({
    uploads: await tx.uploads.healTimes(tx.now, { ...deps.settings, completingMs: HOLD_MS }),
    versions: await tx.versions.healTimes(tx.now),
    sessions: await tx.sessions.healTimes(tx.now),
  }));
  // By themselves: organizations are locked after everything else, and never wait for anything.
  await deps.database.transaction(async (tx) => {
    await tx.organizations.healTimes(tx.now);
    await tx.records.healTimes(tx.now);
  });
  if (Object.values(healed).some((count) => count > 0))
    deps.log.warn(healed, "clock: leases, protections and ends that a clock ahead had written are counted from now");
}
