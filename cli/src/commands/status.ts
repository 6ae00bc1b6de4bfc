import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { fitted } from "@strongroom/command-line/table";
import { quantity } from "@strongroom/protocol/quantity";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Sdk } from "../context.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { type OverviewItem, readOverview } from "../session/overview.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatAge, toIso } from "../terminal/format.ts";
import { enumWord, principal } from "../terminal/reports.ts";
import { serverStatusReport, serverStatusText } from "./server-status.ts";

/** `strongroom status`. */
export const status: CommandSpec = {
  name: "status",
  summary: "how all your collections are: the worst first",
  details: "Shows what is there; `strongroom health --all` is its exit code, for monitoring.",
  args: [],
  options: [
    OPTIONS.ofServer,
    OPTIONS.healthIs,
    OPTIONS.organization,
    OPTIONS.prefix,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  ],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom status", "every collection that you may see"],
    ["strongroom status --health not-ok", "what somebody should look at"],
    ["strongroom status --organization acme --json", "one tenant, for programs"],
    ["strongroom status --server", "the server itself: replicas, upkeep, problems (needs systemAdmin)"],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  return await withClient(context, values, {}, async (connection) => {
    const { sdk } = connection;
    if (values.get(OPTIONS.ofServer)) {
      const server = await connection.client.admin.getServerStatus({}, CALL);
      if (output.isJson) output.json(serverStatusReport(server));
      else output.line(serverStatusText(server, context.now()));
      return EXIT.ok;
    }
    const items = await readOverview(connection, {
      namePrefix: values.get(OPTIONS.prefix),
      organization: values.get(OPTIONS.organization),
      health: ASKED[values.get(OPTIONS.healthIs)].map((word) => statusOf(word, sdk)),
    });
    const sorted = worstFirst(items, sdk);
    if (output.isJson) output.json(statusReport(sorted, sdk));
    else if (sorted.length === 0) output.note("There is no such collection that you may see.");
    else output.line(`${statusTable(sorted, sdk, context.now(), context.stdout)}\n\n${totals(sorted, sdk)}`);
    return EXIT.ok;
  });
}

/** Words of --health, the worst first. */
export const STATUSES = ["failed", "warning", "ok"] as const;

/** What each word of `--health` asks for; nothing for all. */
const ASKED: Readonly<Record<"any" | "not-ok" | (typeof STATUSES)[number], readonly (typeof STATUSES)[number][]>> = {
  any: [],
  failed: ["failed"],
  warning: ["warning"],
  ok: ["ok"],
  "not-ok": ["failed", "warning"],
};

function statusOf(word: (typeof STATUSES)[number], { HealthStatus }: Pick<Sdk, "HealthStatus">) {
  return { failed: HealthStatus.FAILED, warning: HealthStatus.WARNING, ok: HealthStatus.OK }[word];
}

/** Statuses that this program does not know come first, since nobody knows that they are harmless. */
export function worstFirst(items: readonly OverviewItem[], sdk: Pick<Sdk, "HealthStatus">): OverviewItem[] {
  const place = ({ overview }: OverviewItem) => STATUSES.findIndex((word) => statusOf(word, sdk) === overview.status);
  return [...items].sort((a, b) => place(a) - place(b));
}

/** Collections under each other, as wide as the terminal; a file or a pipe gets everything. */
export function statusTable(
  items: readonly OverviewItem[],
  sdk: Sdk,
  now: number,
  screen: { readonly isTTY?: boolean; readonly columns?: number },
): string {
  const rows = items.map(({ collection: { name, usage, limits, organization }, overview }) => {
    const { newestVersion: newest, problems } = overview;
    return [
      name,
      enumWord(sdk.HealthStatus, overview.status),
      newest === undefined ? "-" : formatAge(newest.begunAt, now),
      newest === undefined ? "-" : formatSize(newest.sizeBytes),
      newest === undefined ? "-" : principal(newest.uploadedBy, newest.accessKey),
      String(usage?.versionCount ?? 0),
      used(usage?.storedBytes ?? 0n, limits?.maxCollectionSizeBytes),
      organization,
      problems.map(({ name: check, message }) => `${check}: ${message}`).join("; "),
    ];
  });
  const columns = [
    { title: "COLLECTION" },
    { title: "HEALTH" },
    { title: "NEWEST", align: "right" },
    { title: "SIZE", align: "right" },
    { title: "BY" },
    { title: "VERSIONS", align: "right" },
    { title: "USED", align: "right" },
    { title: "ORGANIZATION" },
    { title: "PROBLEMS" },
  ] as const;
  return fitted(columns, rows, screen.isTTY === true ? screen.columns || 80 : undefined);
}

function used(stored: bigint, limit: bigint | undefined): string {
  if (limit === undefined || limit === 0n) return formatSize(stored);
  return `${formatSize(stored)} (${(stored * 100n) / limit}%)`;
}

function totals(items: readonly OverviewItem[], sdk: Sdk): string {
  const stored = items.reduce((sum, { collection }) => sum + (collection.usage?.storedBytes ?? 0n), 0n);
  const versions = items.reduce((sum, { collection }) => sum + (collection.usage?.versionCount ?? 0), 0);
  const counts = countsOf(items, sdk);
  const parts = Object.entries(counts).map(([word, count]) => `${count} ${word}`);
  return `${quantity(items.length, "collection")}: ${parts.join(", ")}; ${quantity(versions, "version")}, ${formatSize(stored)}`;
}

function countsOf(items: readonly OverviewItem[], sdk: Sdk): Record<string, number> {
  const counts: Record<string, number> = Object.fromEntries(STATUSES.map((word) => [word, 0]));
  for (const { overview } of items) {
    const word = enumWord(sdk.HealthStatus, overview.status);
    counts[word] = (counts[word] ?? 0) + 1;
  }
  return counts;
}

/** What `--json` prints, of `status` and `health --all`. */
export function statusReport(items: readonly OverviewItem[], sdk: Sdk) {
  return {
    total: items.length,
    counts: countsOf(items, sdk),
    storedBytes: items.reduce((sum, { collection }) => sum + (collection.usage?.storedBytes ?? 0n), 0n),
    collections: items.map(({ collection: { name, usage, limits, organization, frozen }, overview }) => ({
      collection: name,
      organization: organization || undefined,
      frozen: frozen || undefined,
      status: enumWord(sdk.HealthStatus, overview.status),
      problems: overview.problems.map(({ name: check, status, message, beganAt, advice }) => ({
        name: check,
        status: enumWord(sdk.HealthStatus, status),
        message,
        since: toIso(beganAt),
        advice: advice || undefined,
      })),
      newestVersion: overview.newestVersion && {
        version: overview.newestVersion.number,
        begunAt: toIso(overview.newestVersion.begunAt),
        committedAt: toIso(overview.newestVersion.committedAt),
        size: overview.newestVersion.sizeBytes,
        uploadedBy: overview.newestVersion.uploadedBy,
        accessKey: overview.newestVersion.accessKey || undefined,
      },
      versions: usage?.versionCount ?? 0,
      storedBytes: usage?.storedBytes ?? 0n,
      reservedBytes: usage?.reservedBytes ?? 0n,
      trashBytes: usage?.trashBytes ?? 0n,
      openUploads: usage?.openUploads ?? 0,
      maxCollectionSize: limits?.maxCollectionSizeBytes,
    })),
  };
}
