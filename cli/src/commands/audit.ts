import type { AuditLogEntry, StrongroomClient } from "@strongroom/client-sdk";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { jsonLine } from "@strongroom/command-line/json";
import { option } from "@strongroom/command-line/option";
import { shown } from "@strongroom/command-line/shown";
import { table } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatTime, toIso } from "../terminal/format.ts";

/** Events that `audit list` shows unless --limit says otherwise. */
const SHOWN = "100";

const FILTERS = {
  since: option({ name: "since", value: "time", help: "only events from then on, such as 2026-01-31", read: dateOf }),
  before: option({ name: "before", value: "time", help: "only events before then", read: dateOf }),
  collection: option({ name: "in-collection", value: "name", help: "only events of this collection" }),
  kind: option({ name: "kind", value: "kind", help: "only events of this kind, such as version.removed" }),
  limit: option({
    name: "limit",
    value: "n",
    default: SHOWN,
    help: "of list: the most events",
    read: (text) => {
      if (!/^[1-9]\d{0,6}$/.test(text)) throw new RangeError(`expected a number from 1, got ${shown(text)}`);
      return Number(text);
    },
  }),
} as const;

/** `strongroom audit list` and `strongroom audit export`. */
export const audit: CommandSpec = {
  name: "audit",
  summary: "list events of the audit log, or export them (needs systemAdmin)",
  details:
    "`list` shows the newest events. `export` writes every event that fits as a line of JSON, the newest first, for " +
    "other programs and for `strongroom audit verify --export`. What makes and verifies signatures are commands of the " +
    "server: `strongroom audit keygen`, `audit verify`, `audit accept-loss`.",
  args: [["[what]", "list or export; list when left out"]],
  options: [OPTIONS.user, ...Object.values(FILTERS), ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom audit list --kind version.removed --since 2026-01-31", "what was removed since then"],
    ["strongroom audit export > audit.jsonl", "everything, for programs"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const what = args[0] ?? "list";
  if (what !== "list" && what !== "export") throw new UsageError(`expected list or export, got ${shown(what)}`);
  const request = {
    user: values.get(OPTIONS.user) ?? "",
    collection: values.get(FILTERS.collection) ?? "",
    kind: values.get(FILTERS.kind) ?? "",
    loggedAfter: timestampOf(values.get(FILTERS.since)),
    loggedUntil: timestampOf(values.get(FILTERS.before)),
  };
  return await withClient(context, values, {}, async ({ client }) => {
    if (what === "export") {
      for await (const event of events(client, request)) context.stdout.write(jsonLine(exported(event)));
      return EXIT.ok;
    }
    const found: AuditLogEntry[] = [];
    const limit = values.get(FILTERS.limit);
    for await (const event of events(client, request)) {
      found.push(event);
      if (found.length === limit) break;
    }
    if (output.isJson) output.json({ events: found.map(exported) });
    else output.line(table(COLUMNS, found.map(rowOf)));
    return EXIT.ok;
  });
}

const COLUMNS = ["WHEN", "WHO", "WHAT", "WHERE", "OBJECT", "HOW", "DETAILS"].map((title) => ({ title }));

function rowOf(event: AuditLogEntry): string[] {
  const who = `${event.actor}${event.accessKey === "" ? "" : `$${event.accessKey}`}`;
  const details = Object.entries(event.details).map(([name, value]) => `${name}=${value}`);
  const from = event.address === "" ? who : `${who} (${event.address})`;
  const how = event.reason === "" ? event.outcome : `${event.outcome}: ${event.reason}`;
  return [formatTime(event.loggedAt), from, event.kind, event.collection, event.object, how, details.join(" ")];
}

/** An event as `audit verify --export` reads it. */
function exported(event: AuditLogEntry) {
  const hex = (bytes: Uint8Array) => (bytes.length === 0 ? null : Buffer.from(bytes).toString("hex"));
  return {
    place: event.place === 0n ? null : String(event.place),
    at: toIso(event.loggedAt),
    id: event.id,
    kind: event.kind,
    actor: event.actor,
    accessKey: event.accessKey,
    sessionId: event.sessionId,
    address: event.address,
    requestId: event.requestId,
    collectionName: event.collection,
    object: event.object,
    outcome: event.outcome,
    reason: event.reason,
    details: event.details,
    previousHash: hex(event.previousHash),
    hash: hex(event.hash),
  };
}

type Request = Omit<Parameters<StrongroomClient["admin"]["listAuditEvents"]>[0], "pageToken" | "$typeName">;

async function* events(client: StrongroomClient, request: Request): AsyncGenerator<AuditLogEntry, void, undefined> {
  let pageToken = "";
  do {
    const page = await client.admin.listAuditEvents({ ...request, pageToken }, CALL);
    yield* page.events;
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}

function timestampOf(date: Date | undefined) {
  if (date === undefined) return undefined;
  const seconds = Math.floor(date.getTime() / 1000);
  return { seconds: BigInt(seconds), nanos: (date.getTime() - seconds * 1000) * 1_000_000 };
}

function dateOf(text: string): Date {
  const date = new Date(text);
  if (!/^\d{4}-/.test(text) || Number.isNaN(date.getTime()))
    throw new RangeError(`expected a time such as 2026-01-31 or 2026-01-31T12:00:00Z, got ${shown(text)}`);
  return date;
}
