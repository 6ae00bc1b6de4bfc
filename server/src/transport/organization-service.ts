import type { ServiceImpl } from "@connectrpc/connect";
import type { OrganizationService } from "@strongroom/gen/strongroom/v1/organization_service_pb";
import { MAX_DESCRIPTION_LENGTH, MAX_NAME_LENGTH, PAGE } from "@strongroom/protocol/limits";
import {
  closeOrganization,
  listOrganizations,
  type OrganizationView,
  openOrganization,
} from "../app/organizations/organizations.ts";
import { type PurgeDeps, purgeOrganization } from "../app/organizations/purge.ts";
import { listUsage } from "../app/organizations/usage.ts";
import type { PurgeRecord } from "../app/ports/database.ts";
import { invalidField } from "../domain/errors.ts";
import { callerOf } from "./connect-calls.ts";
import { time } from "./messages.ts";
import { byteCountOf, dayOf, pagePosition, pageSizeOf, pageToken, textOf, versionCountOf } from "./shapes.ts";

/** OrganizationService of the contract. */
export function organizationService(deps: PurgeDeps): ServiceImpl<typeof OrganizationService> {
  return {
    async listOrganizations(req, context) {
      const { organizations, nextAfter } = await listOrganizations(deps, callerOf(context.values), {
        afterName: pagePosition("organizations", req.pageToken, /^.{1,253}$/),
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return {
        organizations: organizations.map(organizationMessage),
        nextPageToken: pageToken("organizations", nextAfter),
      };
    },

    async closeOrganization(req, context) {
      if (req.reason.trim() === "") throw invalidField("reason", "expected why it is closed; uploaders are told");
      const reason = textOf("reason", req.reason, MAX_DESCRIPTION_LENGTH);
      const closed = await closeOrganization(deps, callerOf(context.values), nameOf(req.organization), reason);
      return { organization: organizationMessage(closed) };
    },

    async openOrganization(req, context) {
      const opened = await openOrganization(deps, callerOf(context.values), nameOf(req.organization));
      return { organization: organizationMessage(opened) };
    },

    async purgeOrganization(req, context) {
      const record = await purgeOrganization(deps, callerOf(context.values), nameOf(req.organization), {
        versions: versionCountOf("version_count", req.versionCount),
        bytes: byteCountOf("size_bytes", req.sizeBytes),
      });
      return { purge: purgeMessage(record) };
    },

    async listUsage(req, context) {
      const position = pagePosition("usage", req.pageToken, /^\d{4}-\d\d-\d\d\/[^/]{0,253}\/[^/]{1,253}$/);
      const [day = "", organization = "", collectionName = ""] = position?.split("/") ?? [];
      const filter = {
        organization: req.organization === "" ? undefined : nameOf(req.organization),
        collectionName: req.collection === "" ? undefined : textOf("collection", req.collection, MAX_NAME_LENGTH),
        fromDay: dayOf("from_day", req.fromDay),
        toDay: dayOf("to_day", req.toDay),
      };
      const { days, next } = await listUsage(deps, callerOf(context.values), filter, {
        after: position === undefined ? undefined : { day, organization, collectionName },
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return {
        days: days.map(({ key, receivedBytes, storedBytes, versions }) => ({
          day: key.day,
          organization: key.organization,
          collection: key.collectionName,
          receivedBytes,
          storedBytes,
          versionCount: versions,
        })),
        nextPageToken: pageToken("usage", next && `${next.day}/${next.organization}/${next.collectionName}`),
      };
    },
  };
}

function nameOf(name: string): string {
  if (name === "") throw invalidField("organization", "expected the name of an organization");
  return textOf("organization", name, MAX_NAME_LENGTH);
}

function organizationMessage(view: OrganizationView) {
  return {
    name: view.name,
    configured: view.configured,
    maxTotalSizeBytes: view.maxTotalSize ?? 0n,
    storedBytes: view.storedBytes,
    reservedBytes: view.reservedBytes,
    trashBytes: view.trashBytes,
    closedAt: time(view.closedAt),
    closedBy: view.closedBy,
    closedReason: view.closedReason,
    purge: view.purge === null ? undefined : purgeMessage(view.purge),
  };
}

function purgeMessage({ at, by, versions, bytes, collections }: PurgeRecord) {
  return {
    purgedAt: time(new Date(at)),
    purgedBy: by,
    versionCount: BigInt(versions),
    sizeBytes: BigInt(bytes),
    collections: [...collections],
  };
}
