import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { table } from "@strongroom/command-line/table";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, withClient } from "../session/session.ts";

/** `strongroom usage`. */
export const usage: CommandSpec = {
  name: "usage",
  summary: "what was uploaded each day, by organization and collection (needs systemAdmin)",
  details: "Days are those of UTC. What an upload brought counts on the day it ended, as a version or without one.",
  args: [["[collection]", "name of a collection; all without it"]],
  options: [OPTIONS.organization, OPTIONS.fromDay, OPTIONS.toDay, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom usage --from 2026-01-01 --to 2026-01-31 --json", "a month, for programs"],
    ["strongroom usage --organization acme", "one organization"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const filter = {
    organization: values.get(OPTIONS.organization) ?? "",
    collection: args[0] ?? "",
    fromDay: values.get(OPTIONS.fromDay) ?? "",
    toDay: values.get(OPTIONS.toDay) ?? "",
  };
  return await withClient(context, values, {}, async ({ client }) => {
    const days = await collectPages(async (pageToken) => {
      const { days, nextPageToken } = await client.organizations.listUsage({ ...filter, pageToken }, CALL);
      return { items: days, nextPageToken };
    });
    if (output.isJson) {
      const rows = days.map(({ day, organization, collection, receivedBytes, storedBytes, versionCount }) => ({
        day,
        organization: organization || undefined,
        collection,
        received: receivedBytes,
        stored: storedBytes,
        versions: versionCount,
      }));
      output.json({ days: rows });
      return EXIT.ok;
    }
    const columns = [
      { title: "DAY" },
      { title: "ORGANIZATION" },
      { title: "COLLECTION" },
      { title: "RECEIVED", align: "right" as const },
      { title: "STORED", align: "right" as const },
      { title: "VERSIONS", align: "right" as const },
    ];
    const rows = days.map((each) => [
      each.day,
      each.organization || "-",
      each.collection,
      formatSize(each.receivedBytes),
      formatSize(each.storedBytes),
      `${each.versionCount}`,
    ]);
    output.line(table(columns, rows));
    return EXIT.ok;
  });
}
