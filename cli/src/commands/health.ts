import type { GetCollectionHealthResponse } from "@strongroom/client-sdk";
import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { pairs, table } from "@strongroom/command-line/table";
import type { OptionValues } from "@strongroom/command-line/values";
import { HEALTH_SECRET_HEADER } from "@strongroom/protocol/headers";
import { quantity } from "@strongroom/protocol/quantity";
import { requiredCollection } from "../collection-argument.ts";
import type { CommandSpec, Invocation } from "../command.ts";
import { type Context, type Sdk, secretFromEnv } from "../context.ts";
import { readSecretFile } from "../files/input-files.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SECRETS, SESSION_SECRETS } from "../options.ts";
import { readOverview } from "../session/overview.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatAge, formatTime, type Timestamp, toIso } from "../terminal/format.ts";
import { enumWord } from "../terminal/reports.ts";
import { statusReport, statusTable, worstFirst } from "./status.ts";

/** `strongroom health`. */
export const health: CommandSpec = {
  name: "health",
  summary: "report whether a collection, or all of them, have the backups they should have",
  details:
    "Exit code 0: well. 8: a check failed, or with --fail-on warning, is not ok. Anything else: it could not " +
    "be found out.",
  args: [["[collection]", "name of the collection"]],
  options: [
    OPTIONS.failOn,
    OPTIONS.everyCollection,
    OPTIONS.secretFile,
    OPTIONS.collection,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  ],
  secrets: [...SESSION_SECRETS, SECRETS.healthSecret],
  examples: [
    ["strongroom health pg-main", "the checks, for people"],
    ["strongroom health pg-main --fail-on warning --quiet || alert", "for monitoring"],
    ["strongroom health --all --quiet || alert", "whether every collection that you may see is well"],
    [
      "strongroom health pg-main --url https://backup.example.org --secret-file /etc/strongroom/health",
      "without a session",
    ],
  ],
  run,
};

async function run(invocation: Invocation): Promise<ExitCode> {
  const { args, values, output, context } = invocation;
  if (values.get(OPTIONS.everyCollection)) return await ofAll(invocation);
  const collection = requiredCollection(args[0], values, "strongroom health pg-main");
  const secret = await healthSecret(values, context);
  return await withClient(context, values, { anonymous: secret !== undefined }, async ({ client, sdk }) => {
    const options = secret === undefined ? CALL : { ...CALL, headers: { [HEALTH_SECRET_HEADER]: secret.value } };
    const answer = await client.collections.getCollectionHealth({ collection }, options).catch((error: unknown) => {
      throw secret === undefined ? error : bySecret(error, collection, secret.origin, sdk);
    });
    if (output.isJson) output.json(healthReport(collection, answer, sdk));
    else if (!output.isQuiet) output.line(healthText(collection, answer, sdk, context.now()));
    const exitCode = healthExitCode(answer, values.get(OPTIONS.failOn), sdk);
    // Something to send for cron, which otherwise learns of a failure from nobody.
    if (!output.isJson && output.isQuiet && exitCode !== EXIT.ok)
      output.line(healthText(collection, answer, sdk, context.now()));
    return exitCode;
  });
}

/** Who sees nothing is not told that all is well. */
async function ofAll({ args, values, output, context }: Invocation): Promise<ExitCode> {
  if (args[0] !== undefined || values.source(OPTIONS.collection) === "flag")
    throw new UsageError("--all is about every collection; name none.");
  return await withClient(context, values, {}, async (connection) => {
    const { sdk } = connection;
    const items = worstFirst(await readOverview(connection), sdk);
    const [worst] = items;
    if (worst === undefined) throw new CommandError("there is no collection that you may see", EXIT.refused);
    const unwell = items.filter(({ overview }) => overview.status !== sdk.HealthStatus.OK);
    if (output.isJson) output.json(statusReport(items, sdk));
    else if (!output.isQuiet && unwell.length === 0) output.line(`${quantity(items.length, "collection")}: all ok`);
    else if (!output.isQuiet) output.line(statusTable(unwell, sdk, context.now(), context.stdout));
    const failOn = values.get(OPTIONS.failOn);
    const failed = unwell.filter(({ overview }) => healthExitCode(overview, failOn, sdk) !== EXIT.ok);
    if (!output.isJson && output.isQuiet && failed.length > 0)
      output.line(statusTable(failed, sdk, context.now(), context.stdout));
    return healthExitCode(worst.overview, failOn, sdk);
  });
}

/** A wrong secret has the same answer as a collection that does not exist, so both are named. */
function bySecret(error: unknown, collection: string, origin: string, sdk: Sdk): unknown {
  const refused = sdk.toStrongroomError(error);
  if (!(refused instanceof sdk.NotFoundError)) return error;
  return new CommandError(
    `there is no collection ${collection}, or the health secret from ${origin} is not that of the collection`,
    EXIT.refused,
    {
      hint: "compare it with the Secret that spec.healthSecretRef of the collection names",
      reason: refused.reason,
      cause: refused,
    },
  );
}

/** The order: --secret-file, STRONGROOM_HEALTH_SECRET, STRONGROOM_SECRET_FILE. */
async function healthSecret(
  values: OptionValues,
  context: Context,
): Promise<{ value: string; origin: string } | undefined> {
  const path = values.get(OPTIONS.secretFile);
  const secret = secretFromEnv(SECRETS.healthSecret, context.env);
  const fileFirst = values.source(OPTIONS.secretFile) === "flag" || secret === undefined;
  const isFile = path !== undefined && fileFirst;
  const value = isFile ? await readSecretFile(path, "health secret") : secret?.value;
  // Not echoed, as Node.js would when the header is made.
  if (value !== undefined && !/^[\x20-\x7e]+$/.test(value))
    throw new UsageError(
      "Expected the health secret as one line of printable ASCII characters, without a line break at its end.",
    );
  return value === undefined ? undefined : { value, origin: isFile ? path : secret!.name };
}

/** 0 or 8. A status this program does not know is not ok. */
export function healthExitCode(
  { status }: Pick<GetCollectionHealthResponse, "status">,
  failOn: "failed" | "warning",
  sdk: Pick<Sdk, "HealthStatus">,
): ExitCode {
  const { OK, WARNING } = sdk.HealthStatus;
  if (status === OK || (status === WARNING && failOn === "failed")) return EXIT.ok;
  return EXIT.unhealthy;
}

function healthReport(collection: string, answer: GetCollectionHealthResponse, sdk: Sdk) {
  const failed = answer.lastFailedUpload;
  return {
    collection,
    status: enumWord(sdk.HealthStatus, answer.status),
    checks: answer.checks.map(({ name, status, message, beganAt, advice }) => ({
      name,
      status: enumWord(sdk.HealthStatus, status),
      message,
      since: toIso(beganAt),
      advice: advice || undefined,
    })),
    newestVersion: answer.newestVersionNumber === 0n ? undefined : answer.newestVersionNumber,
    newestVersionAt: toIso(answer.newestVersionAt),
    lastFailedUpload: failed && {
      uploadId: failed.uploadId,
      begunAt: toIso(failed.begunAt),
      endedAt: toIso(failed.endedAt),
      reason: failed.reason,
    },
  };
}

function healthText(collection: string, answer: GetCollectionHealthResponse, sdk: Sdk, now: number): string {
  const { newestVersionAt, newestVersionNumber, lastFailedUpload, timezone } = answer;
  const at = (time: Timestamp | undefined) => formatTime(time, timezone);
  const newest =
    newestVersionNumber === 0n
      ? "none"
      : `${newestVersionNumber}, ${at(newestVersionAt)} (${formatAge(newestVersionAt, now)})`;
  const head = pairs([
    ["Collection", collection],
    ["Health", enumWord(sdk.HealthStatus, answer.status)],
    ["Newest version", newest],
    ["Time zone", timezone || undefined],
    ["Last failed upload", lastFailedUpload && `${at(lastFailedUpload.endedAt)}: ${lastFailedUpload.reason}`],
  ]);
  const rows = answer.checks.map(({ name, status, message, beganAt }) => [
    name,
    enumWord(sdk.HealthStatus, status),
    beganAt === undefined ? "" : at(beganAt),
    message,
  ]);
  if (rows.length === 0) return head;
  const columns = [{ title: "CHECK" }, { title: "STATUS" }, { title: "SINCE" }, { title: "FOUND" }];
  const toDo = pairs(answer.checks.map(({ name, advice }) => [name, advice]));
  return `${head}\n\n${table(columns, rows)}${toDo === "" ? "" : `\n\nWhat to do:\n${toDo}`}`;
}
