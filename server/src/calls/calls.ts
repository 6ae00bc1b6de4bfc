import type { LoginBudget } from "../app/sessions/login-budget.ts";
import type { AuthenticationDeps } from "../app/sessions/sessions.ts";
import type { Log } from "../app/settings.ts";
import { DomainError } from "../domain/errors.ts";
import { authenticateCall, type HeaderReader } from "./authentication.ts";
import type { ProcessBudgets } from "./budgets.ts";
import type { Call } from "./call.ts";
import { type Ending, logCall } from "./call-log.ts";
import { countCall } from "./count-calls.ts";
import type { Metrics } from "./metrics.ts";
import { routeOf } from "./routes.ts";

/** What {@link Calls} needs. */
export interface CallsDeps extends AuthenticationDeps {
  readonly log: Log;
  readonly metrics: Metrics | undefined;
  readonly budgets: ProcessBudgets;
  readonly logins: Pick<LoginBudget, "take">;
}

/** What is true of every call, whatever door it came through: who is let in, and what is written down of it. */
export class Calls {
  readonly #deps: CallsDeps;

  constructor(deps: CallsDeps) {
    this.#deps = deps;
  }

  /**
   * Lets a call in by its route, before its body is read: takes from the budget first, then finds out who calls.
   * @throws DomainError RATE_LIMITED, AUTHENTICATION_REQUIRED, SESSION_INVALID; ACCESS_DENIED for a method without a route
   */
  async admit(call: Call, header: HeaderReader): Promise<void> {
    const route = routeOf(call.method);
    const { budgets, logins } = this.#deps;
    (route?.budget === "health" ? budgets.health : budgets.requests).take(call.address);
    if (route === undefined) throw new DomainError("ACCESS_DENIED", "this method cannot be called");
    if (route.budget === "login") await logins.take(call.address);
    const principal = await authenticateCall(this.#deps, route, call.address, header);
    if (principal !== undefined) call.principal = principal;
  }

  /** Ends a call: one line in the log, and the counters. */
  end(call: Call, ending: Ending): void {
    logCall(this.#deps.log, call, ending);
    if (this.#deps.metrics !== undefined) countCall(this.#deps.metrics, call, ending);
  }
}
