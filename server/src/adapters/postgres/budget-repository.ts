import { eq, gt, lte, or, sql } from "drizzle-orm";
import type { BudgetRepository } from "../../app/ports/database.ts";
import { CLOCK_SLACK_MS } from "../../domain/clock.ts";
import { MAX_PER_MS, takeToken, tokenMs } from "../../domain/rate-limit.ts";
import type { Executor } from "./repositories.ts";
import * as schema from "./schema.ts";

/** Budgets of logins over SQL. */
export function budgetRepository(db: Executor): BudgetRepository {
  const { loginBudgets } = schema;
  return {
    async take(holder, limit, now) {
      const token = tokenMs(limit);
      const at = now.getTime();
      // A budget cannot take longer to be whole than its period: what lies further ahead was written by a wrong clock,
      // counts as whole, and is written again here.
      const beyond = at + limit.perMs + CLOCK_SLACK_MS;
      const known = sql`case when ${loginBudgets.fullAtMs} > ${beyond}::double precision then ${at}::double precision
        else ${loginBudgets.fullAtMs} end`;
      // The arithmetic of takeToken, in one statement, so that two servers cannot take the same token.
      const next = sql`greatest(${known}, ${at}::double precision) + ${token}::double precision`;
      const rows = await db
        .insert(loginBudgets)
        .values({ holder, fullAtMs: at + token })
        .onConflictDoUpdate({
          target: loginBudgets.holder,
          set: { fullAtMs: next },
          setWhere: sql`${next} <= ${at + limit.perMs + 0.001}::double precision`,
        })
        .returning({ fullAt: loginBudgets.fullAtMs });
      if (rows[0] !== undefined) return { fullAt: rows[0].fullAt };
      const [row] = await db.select().from(loginBudgets).where(eq(loginBudgets.holder, holder));
      const taken = takeToken(limit, row?.fullAtMs, at);
      // One was given back between the two statements; the next try may have it.
      return "retryAfterMs" in taken ? taken : { retryAfterMs: 1 };
    },
    async giveBack(holder, limit) {
      await db
        .update(loginBudgets)
        .set({ fullAtMs: sql`${loginBudgets.fullAtMs} - ${tokenMs(limit)}::double precision` })
        .where(eq(loginBudgets.holder, holder));
    },
    async deleteFull(now) {
      const rows = await db
        .delete(loginBudgets)
        .where(
          or(
            lte(loginBudgets.fullAtMs, now.getTime()),
            gt(loginBudgets.fullAtMs, now.getTime() + MAX_PER_MS + CLOCK_SLACK_MS),
          ),
        )
        .returning({ holder: loginBudgets.holder });
      return rows.length;
    },
  };
}
