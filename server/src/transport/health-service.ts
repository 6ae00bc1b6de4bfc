import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { type Health, HealthCheckResponse_ServingStatus as Status } from "@strongroom/gen/grpc/health/v1/health_pb";
import type { ServingState } from "./serving-state.ts";

/** The standard gRPC health service (grpc-proto, `grpc/health/v1`). The empty name stands for the whole server. */
export function healthService(state: ServingState, serviceNames: readonly string[]): ServiceImpl<typeof Health> {
  const names = ["", ...serviceNames];
  const current = async () => ({ status: (await state.isServing()) ? Status.SERVING : Status.NOT_SERVING });
  return {
    async check(req) {
      if (!names.includes(req.service)) throw new ConnectError(`unknown service ${req.service}`, Code.NotFound);
      return await current();
    },

    async list() {
      const status = await current();
      return { statuses: Object.fromEntries(names.map((name) => [name, status])) };
    },

    async *watch(req, context) {
      if (!names.includes(req.service)) {
        yield { status: Status.SERVICE_UNKNOWN };
        return;
      }
      for (let last: Status | undefined; !context.signal.aborted; ) {
        const next = await current();
        if (next.status !== last) yield next;
        last = next.status;
        if (state.stopping) return;
        await state.change(context.signal);
      }
    },
  };
}
