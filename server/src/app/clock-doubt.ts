import { type ClockState, clockState } from "../domain/clock.ts";
import type { Transaction } from "./ports/database.ts";

/** What speaks against the database's clock at this moment; undefined while nothing does. */
export async function clockDoubt(tx: Transaction): Promise<ClockState | undefined> {
  const state = clockState(await tx.clock.read(), tx.now);
  return state.status === "right" ? undefined : state;
}
