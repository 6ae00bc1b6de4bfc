import type { ClockRepository } from "../../app/ports/database.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** What is remembered of the clock over SQL, in the row of the installation. */
export function clockRepository(db: Executor): ClockRepository {
  const { installation } = schema;
  const columns = {
    newestAt: installation.clockNewestAt,
    pausedUntil: installation.clockPausedUntil,
    pauseReason: installation.clockPauseReason,
  };
  const nothing = { newestAt: null, pausedUntil: null, pauseReason: "" };
  return {
    read: async () => (await db.select(columns).from(installation))[0] ?? nothing,
    lock: async () => (await db.select(columns).from(installation).for("update"))[0] ?? nothing,
    async write({ newestAt, pausedUntil, pauseReason }) {
      await db
        .update(installation)
        .set({ clockNewestAt: newestAt, clockPausedUntil: pausedUntil, clockPauseReason: pauseReason });
    },
  };
}
