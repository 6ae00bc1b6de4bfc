import type { Organization } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { table } from "@strongroom/command-line/table";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime, toIso } from "../terminal/format.ts";

/** `strongroom organizations`. */
export const organizations: CommandSpec = {
  name: "organizations",
  summary: "list organizations, close one, or open it again (needs systemAdmin)",
  details:
    "A closed organization is read-only: its collections take no uploads, and whoever tries is told the reason; " +
    "downloads go on. What ends one for good is `strongroom purge`.",
  options: [OPTIONS.close, OPTIONS.reason, OPTIONS.open, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom organizations", "what each has stored"],
    ["strongroom organizations --close acme --reason 'contract has ended'", "no more uploads"],
    ["strongroom organizations --open acme", "uploads again"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  const [close, open, reason] = [values.get(OPTIONS.close), values.get(OPTIONS.open), values.get(OPTIONS.reason)];
  if (close !== undefined && open !== undefined) throw new UsageError("--close and --open contradict each other.");
  if (close !== undefined && reason === undefined)
    throw new UsageError("--close needs --reason, which uploaders are told.");
  return await withClient(context, values, {}, async ({ client }) => {
    if (close !== undefined || open !== undefined) {
      const { organization } =
        close === undefined
          ? await client.organizations.openOrganization({ organization: open ?? "" }, CALL)
          : await client.organizations.closeOrganization({ organization: close, reason: reason ?? "" }, CALL);
      context.achieved?.();
      if (output.isJson) output.json(organization && report(organization));
      else output.note(`Organization ${close ?? open} ${close === undefined ? "takes uploads" : "is closed"}.`);
      return EXIT.ok;
    }
    const found = await collectPages(async (pageToken) => {
      const { organizations, nextPageToken } = await client.organizations.listOrganizations({ pageToken }, CALL);
      return { items: organizations, nextPageToken };
    });
    if (output.isJson) output.json({ organizations: found.map(report) });
    else output.line(table(COLUMNS, found.map(rowOf)));
    return EXIT.ok;
  });
}

const COLUMNS = [
  { title: "ORGANIZATION" },
  { title: "STORED", align: "right" as const },
  { title: "UPLOADING", align: "right" as const },
  { title: "TRASH", align: "right" as const },
  { title: "LIMIT", align: "right" as const },
  { title: "STATE" },
];

function rowOf(organization: Organization): string[] {
  const { name, storedBytes, reservedBytes, trashBytes, maxTotalSizeBytes: limit } = organization;
  const sizes = [storedBytes, reservedBytes, trashBytes].map((bytes) => formatSize(bytes));
  return [name, ...sizes, limit === 0n ? "-" : formatSize(limit), stateOf(organization)];
}

function stateOf({ closedAt, closedReason, purge }: Organization): string {
  if (closedAt === undefined) return "open";
  const purged = purge === undefined ? "" : `, purged ${formatTime(purge.purgedAt)}`;
  return `closed ${formatTime(closedAt)}: ${closedReason}${purged}`;
}

function report({ purge, ...organization }: Organization) {
  return {
    name: organization.name,
    configured: organization.configured,
    maxTotalSize: organization.maxTotalSizeBytes === 0n ? undefined : organization.maxTotalSizeBytes,
    stored: organization.storedBytes,
    reserved: organization.reservedBytes,
    trash: organization.trashBytes,
    closedAt: toIso(organization.closedAt),
    closedBy: organization.closedBy || undefined,
    closedReason: organization.closedReason || undefined,
    purge: purge && {
      purgedAt: toIso(purge.purgedAt),
      purgedBy: purge.purgedBy,
      versions: purge.versionCount,
      size: purge.sizeBytes,
      collections: purge.collections,
    },
  };
}
