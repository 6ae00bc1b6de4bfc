import type { AuditNotes } from "../app/audit/trail.ts";
import type { LoginBudget } from "../app/sessions/login-budget.ts";
import type { Log } from "../app/settings.ts";
import { DomainError } from "../domain/errors.ts";
import { refusalOf } from "./audit-refusal.ts";
import { authenticateCall, type CallAuthenticationDeps, type Credentials } from "./authentication.ts";
import type { ProcessBudgets } from "./budgets.ts";
import type { Call } from "./call.ts";
import { type Ending, logCall } from "./call-log.ts";
import { countCall } from "./count-calls.ts";
import { HeldBytes, UNREAD_BYTES } from "./held-bytes.ts";
import type { Metrics } from "./metrics.ts";
import { type RouteBudget, routeOf } from "./routes.ts";

/** What {@link Calls} needs. */
export interface CallsDeps extends CallAuthenticationDeps {
  readonly log: Log;
  readonly metrics: Metrics | undefined;
  readonly budgets: ProcessBudgets;
  readonly logins: Pick<LoginBudget, "take">;
  readonly audit?: AuditNotes | undefined;
}

/** What a door knows of a call that asks to be let in. */
export interface Asking extends Credentials {
  /** The size of the body as it was announced; undefined when it was not, 0 when there is none. */
  readonly bodyBytes: number | undefined;
}

/** What is true of every call, whatever door it uses: who is let in, and what is written down of it. */
export class Calls {
  readonly #deps: CallsDeps;
  readonly #held: HeldBytes;
  /** What each call holds; gone with the call. */
  readonly #releases = new WeakMap<Call, () => void>();

  constructor(deps: CallsDeps, held: HeldBytes = new HeldBytes()) {
    this.#deps = deps;
    this.#held = held;
  }

  /**
   * Lets a call in by its route, before its body is read: takes from the budget first, then finds out who calls. Until
   * that is known, what the body can come to is counted against the bound of the process.
   * @throws DomainError RATE_LIMITED, AUTHENTICATION_REQUIRED, SESSION_INVALID; ACCESS_DENIED for a method without a
   *   route
   */
  async admit(call: Call, asking: Asking): Promise<void> {
    const route = routeOf(call.method);
    this.draw(call, route?.budget ?? "requests");
    if (route === undefined) throw new DomainError("ACCESS_DENIED", "this method cannot be called");
    const isAnonymous = route.who !== "session";
    // What is read for somebody unknown is held beside what is not read yet.
    const most = UNREAD_BYTES + (isAnonymous && route.message !== "chunk" ? route.message : 0);
    const isStream = route.drawsPerMessage === true;
    this.#hold(call, isStream ? most : Math.min(asking.bodyBytes ?? most, most), isAnonymous);
    if (route.budget === "login") await this.#deps.logins.take(call.address);
    const principal = await authenticateCall(this.#deps, route, call.address, asking);
    if (principal === undefined) return;
    call.principal = { ...principal, origin: { address: call.address, requestId: call.requestId } };
    this.#release(call);
  }

  /** Takes from a budget of the caller's address. @throws DomainError RATE_LIMITED */
  draw(call: Call, budget: RouteBudget = routeOf(call.method)?.budget ?? "requests"): void {
    if (budget === "none") return;
    const { health, requests } = this.#deps.budgets;
    (budget === "health" ? health : requests).take(call.address);
  }

  /**
   * The body of a call was read to its end, and nothing of it is held any more that was not decoded. A stream of
   * answers to somebody unknown goes on being counted until it ends: it costs as much for as long as the caller likes.
   */
  bodyRead(call: Call): void {
    if (call.principal === undefined && routeOf(call.method)?.drawsPerMessage === true) return;
    this.#release(call);
  }

  /** Ends a call: one line in the log, and the counters. */
  end(call: Call, ending: Ending): void {
    this.#release(call);
    logCall(this.#deps.log, call, ending);
    const refusal = refusalOf(call, ending);
    if (refusal !== undefined) this.#deps.audit?.note(refusal);
    if (this.#deps.metrics !== undefined) countCall(this.#deps.metrics, call, ending);
  }

  #release(call: Call): void {
    this.#releases.get(call)?.();
  }

  #hold(call: Call, bytes: number, isAnonymous: boolean): void {
    if (bytes === 0) return;
    const release = this.#held.hold(call.address, bytes, isAnonymous);
    if (release === undefined)
      throw new DomainError("RATE_LIMITED", "too many unfinished calls at this moment; try again in a second", {
        metadata: { budget: "unfinished" },
        retryAfterMs: 1000,
      });
    this.#releases.set(call, release);
  }
}
