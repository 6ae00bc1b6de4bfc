import type { Interceptor } from "@connectrpc/connect";
import { ProcessBudget } from "../app/rate-limits.ts";
import type { RateLimits } from "../domain/rate-limit.ts";
import { ADDRESS } from "./call-context.ts";

/** Methods with the budget of health checks. */
const HEALTH = /^(grpc\.health\.v1\.Health\/|strongroom\.v1\.CollectionService\/GetCollectionHealth$)/;

/** The one method whose use case takes from a budget itself: it is shared by all servers, and given back to who succeeds. */
const LOGIN = "strongroom.v1.SessionService/Login";

/** Takes from the address' budget, once for each call, whatever passes in its stream. */
export function rateLimitInterceptor(limits: RateLimits): Interceptor {
  const clock = () => performance.now();
  const health = new ProcessBudget("health", limits.health, clock);
  const requests = new ProcessBudget("requests", limits.requests, clock);
  return (next) => async (req) => {
    const method = `${req.service.typeName}/${req.method.name}`;
    if (method !== LOGIN) (HEALTH.test(method) ? health : requests).take(req.contextValues.get(ADDRESS));
    return await next(req);
  };
}
