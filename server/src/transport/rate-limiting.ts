import type { Interceptor } from "@connectrpc/connect";
import { ProcessBudget } from "../app/sessions/budgets.ts";
import type { RateLimits } from "../domain/rate-limit.ts";
import { ADDRESS } from "./call-context.ts";

/** Methods with the budget of health checks. */
const HEALTH = /^(grpc\.health\.v1\.Health\/|strongroom\.v1\.CollectionService\/GetCollectionHealth$)/;

/** The one method whose use case takes from a budget itself: it is shared by all servers, and given back to who succeeds. */
const LOGIN = "strongroom.v1.SessionService/Login";

/** Budgets of this process that calls and plain HTTP requests take from. */
export interface ProcessBudgets {
  readonly health: ProcessBudget;
  readonly requests: ProcessBudget;
}

/** Makes the budgets of this process. */
export function processBudgets(limits: RateLimits): ProcessBudgets {
  const clock = () => performance.now();
  return {
    health: new ProcessBudget("health", limits.health, clock),
    requests: new ProcessBudget("requests", limits.requests, clock),
  };
}

/** Takes from the address' budget, once for each call, whatever passes in its stream. */
export function rateLimitInterceptor({ health, requests }: ProcessBudgets): Interceptor {
  return (next) => async (req) => {
    const method = `${req.service.typeName}/${req.method.name}`;
    if (method !== LOGIN) (HEALTH.test(method) ? health : requests).take(req.contextValues.get(ADDRESS));
    return await next(req);
  };
}
