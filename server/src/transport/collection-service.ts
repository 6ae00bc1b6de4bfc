import type { ServiceImpl } from "@connectrpc/connect";
import { type CollectionService, HealthStatus } from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import { PAGE } from "@strongroom/protocol/limits";
import {
  type CollectionDeps,
  getCollection,
  getCollectionHealth,
  listCollections,
} from "../app/collections/collections.ts";
import { confirmPolicy } from "../app/versions/confirm-policy.ts";
import type { VersionDeps } from "../app/versions/versions.ts";
import type { HealthStatus as DomainStatus } from "../domain/health.ts";
import { callerOf, callOf } from "./connect-calls.ts";
import { collectionMessage, time } from "./messages.ts";
import { collectionNameOf, pagePosition, pageSizeOf, pageToken } from "./shapes.ts";

const STATUSES: Readonly<Record<DomainStatus, HealthStatus>> = {
  ok: HealthStatus.OK,
  warning: HealthStatus.WARNING,
  failed: HealthStatus.FAILED,
};

/** CollectionService of the contract. */
export function collectionService(deps: CollectionDeps & VersionDeps): ServiceImpl<typeof CollectionService> {
  return {
    async listCollections(req, context) {
      const { collections, nextAfter } = await listCollections(deps, callerOf(context.values), {
        afterName: pagePosition("collections", req.pageToken, /^.{1,253}$/),
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return { collections: collections.map(collectionMessage), nextPageToken: pageToken("collections", nextAfter) };
    },

    async getCollection(req, context) {
      const details = await getCollection(deps, callerOf(context.values), collectionNameOf(req.collection));
      return { collection: collectionMessage(details) };
    },

    async confirmPolicy(req, context) {
      const input = { collection: collectionNameOf(req.collection), removes: req.removes };
      const { removes, live } = await confirmPolicy(deps, callerOf(context.values), input);
      return { removes: BigInt(removes), live: BigInt(live) };
    },

    async getCollectionHealth(req, context) {
      const caller = {
        principal: callOf(context.values).principal,
        secret: context.requestHeader.get(HEALTH_SECRET_HEADER) ?? undefined,
      };
      const health = await getCollectionHealth(deps, caller, collectionNameOf(req.collection));
      const failed = health.lastFailed;
      return {
        status: STATUSES[health.status],
        checks: health.checks.map(({ status, since, ...check }) => ({
          ...check,
          status: STATUSES[status],
          since: time(since),
        })),
        newestVersionAt: time(health.newest?.begunAt),
        newestVersionNumber: health.newest?.number ?? 0n,
        lastFailedUpload:
          failed === undefined
            ? undefined
            : {
                uploadId: failed.uploadId,
                begunAt: time(failed.begunAt),
                endedAt: time(failed.endedAt),
                reason: failed.reason,
              },
      };
    },
  };
}
