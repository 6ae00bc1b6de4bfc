import type { ServiceImpl } from "@connectrpc/connect";
import {
  type CollectionService,
  HealthStatus,
  HealthStatusSchema,
} from "@strongroom/gen/strongroom/v1/collection_service_pb";
import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import { MAX_NAME_LENGTH, PAGE } from "@strongroom/protocol/limits";
import { type CollectionDeps, getCollection, getCollectionHealth } from "../app/collections/collections.ts";
import { type CollectionOverview, listCollections } from "../app/collections/list-collections.ts";
import { confirmPolicy } from "../app/versions/confirm-policy.ts";
import type { VersionDeps } from "../app/versions/versions.ts";
import { invalidField } from "../domain/errors.ts";
import type { HealthStatus as DomainStatus, HealthCheck } from "../domain/health.ts";
import { callerOf, callOf } from "./connect-calls.ts";
import { collectionMessage, time } from "./messages.ts";
import { collectionNameOf, enumName, pagePosition, pageSizeOf, pageToken, textOf } from "./shapes.ts";

const STATUSES: Readonly<Record<DomainStatus, HealthStatus>> = {
  ok: HealthStatus.OK,
  warning: HealthStatus.WARNING,
  failed: HealthStatus.FAILED,
};

function statusOf(status: HealthStatus): DomainStatus {
  const known = (["ok", "warning", "failed"] as const).find((each) => STATUSES[each] === status);
  if (known !== undefined) return known;
  throw invalidField(
    "health",
    `expected HEALTH_STATUS_OK, _WARNING or _FAILED, got ${enumName(HealthStatusSchema, status)}`,
  );
}

const checkMessage = ({ status, since, ...check }: HealthCheck) => ({
  ...check,
  status: STATUSES[status],
  beganAt: time(since),
});

function overviewMessage({ name, status, problems, facts: { newest } }: CollectionOverview) {
  return {
    collection: name,
    status: STATUSES[status],
    problems: problems.map(checkMessage),
    newestVersion:
      newest === undefined
        ? undefined
        : {
            number: newest.number,
            begunAt: time(newest.begunAt),
            committedAt: time(newest.committedAt),
            sizeBytes: newest.size,
            uploadedBy: newest.userName,
            accessKey: newest.accessKey,
          },
  };
}

/** CollectionService of the contract. */
export function collectionService(deps: CollectionDeps & VersionDeps): ServiceImpl<typeof CollectionService> {
  return {
    async listCollections(req, context) {
      const page = await listCollections(deps, callerOf(context.values), {
        afterName: pagePosition("collections", req.pageToken, /^.{1,253}$/),
        pageSize: pageSizeOf(req.pageSize, PAGE),
        namePrefix: textOf("name_prefix", req.namePrefix, MAX_NAME_LENGTH),
        organization: textOf("organization", req.organization, MAX_NAME_LENGTH),
        health: req.health.map(statusOf),
      });
      return {
        collections: page.collections.map(({ facts, ...view }) =>
          collectionMessage({
            ...view,
            usage: { ...facts, versionCount: facts.liveVersions, nextUploadAllowance: 0n },
          }),
        ),
        overviews: page.collections.map(overviewMessage),
        nextPageToken: pageToken("collections", page.nextAfter),
        totalCount: page.total ?? 0,
      };
    },

    async getCollection(req, context) {
      const details = await getCollection(deps, callerOf(context.values), collectionNameOf(req.collection));
      return { collection: collectionMessage(details) };
    },

    async confirmPolicy(req, context) {
      const input = { collection: collectionNameOf(req.collection), removes: req.removes };
      const { removes, live } = await confirmPolicy(deps, callerOf(context.values), input);
      return { removes, live };
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
        checks: health.checks.map(checkMessage),
        newestVersionAt: time(health.newest?.begunAt),
        newestVersionNumber: health.newest?.number ?? 0n,
        timezone: health.timezone,
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
