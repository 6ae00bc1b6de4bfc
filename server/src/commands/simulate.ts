import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { jsonLine } from "@strongroom/command-line/json";
import { option } from "@strongroom/command-line/option";
import { SHARED } from "@strongroom/command-line/shared-options";
import { quantity } from "@strongroom/protocol/quantity";
import { parseDuration, ValueError } from "@strongroom/protocol/sizes";
import type { CollectionSpec } from "../domain/configuration.ts";
import type { GuardedVersion } from "../domain/guarded-rotation.ts";
import type { SimulatedVersion } from "../domain/simulate.ts";
import type { OperatorCommand, OperatorInvocation } from "./context.ts";
import { DATA } from "./options.ts";
import { configDir } from "./settings.ts";

const schedule = option({
  name: "schedule",
  value: "cron",
  defaultText: "the starts of the collection's windows",
  help: "imagine a backup at each of these times: minute, hour, day, month, weekday, in the collection's time zone",
});
const span = option({
  name: "for",
  value: "duration",
  default: "365d",
  help: "how long the imagined schedule has run up to now",
  read: parseDuration,
});
const history = option({
  name: "history",
  value: "file",
  help:
    "take the versions that are there instead: what `strongroom ls COLLECTION --json` printed; `-` reads it from " +
    "a pipe",
});

/** More backups than this are a slip of the finger, and take minutes. */
const MAX_BACKUPS = 50_000;
/** Most bytes of a history. */
const MAX_HISTORY_BYTES = 256 * 1024 * 1024;

/** `strongroom simulate`: shows what rotation keeps, by the rules of the server. */
export const simulate: OperatorCommand = {
  name: "simulate",
  summary: "show which versions a collection's rotation keeps, and why",
  details:
    "Needs no server and changes nothing: reads the collection's policy from the configuration, and applies it to an " +
    "imagined schedule, or with --history to real versions. Quotas are left out: there is always room.",
  args: [["<collection>", "name of the collection in the configuration"]],
  options: [schedule, span, history, DATA.config, DATA.data, SHARED.envFile, SHARED.json],
  examples: [
    ['strongroom simulate pg-main --schedule "0 */6 * * *" --for 90d', "four backups a day for 90 days"],
    ["strongroom ls pg-main --json | strongroom simulate pg-main --history -", "what the next backup would remove"],
  ],
  run,
};

async function run({ args, values, context }: OperatorInvocation): Promise<ExitCode> {
  const spec = await collectionOf(args[0]!, configDir(values));
  const [{ simulateNext, simulateSeries }, { table }] = await Promise.all([
    import("../domain/simulate.ts"),
    import("@strongroom/command-line/table"),
  ]);
  const file = values.get(history);
  const now = new Date();
  let versions: readonly SimulatedVersion[];
  let summary: string;
  let guard: bigint | undefined;
  if (file === undefined) {
    const times = await imaginedTimes(spec, values.get(schedule), values.get(span), now);
    const { left, most } = simulateSeries(times, spec);
    versions = left;
    summary = `${times.length} backups; ${left.length} versions are left, ${most} were there at once at the most`;
  } else {
    const next = simulateNext(await readHistory(file), spec, now);
    versions = next.versions;
    guard = next.guard;
    const stay = versions.filter(({ reason }) => reason !== undefined).length;
    summary = `with the next backup, version ${versions[0]!.number}: ${stay} stay, ${versions.length - stay} go`;
    if (guard !== undefined)
      summary += `; version ${guard} is shrunk and keeps rotation from removing, see \`strongroom confirm\``;
  }
  if (values.get(SHARED.json)) {
    context.stdout.write(
      jsonLine({
        collection: spec.name,
        strategy: spec.rotation.strategy,
        guardedBy: guard === undefined ? undefined : Number(guard),
        versions: versions.map(report),
      }),
    );
    return EXIT.ok;
  }
  const rows = versions.map((version) => [
    String(version.number),
    localTime(version.begunAt, spec.timezone),
    why(version),
  ]);
  context.stdout.write(
    `${table([{ title: "version", align: "right" }, { title: "begun" }, { title: "stays" }], rows)}\n`,
  );
  context.stdout.write(`${spec.name}, ${spec.rotation.strategy}: ${summary}\n`);
  return EXIT.ok;
}

async function collectionOf(name: string, dir: string): Promise<CollectionSpec> {
  const { loadConfiguration } = await import("../adapters/config-files/source.ts");
  const { configuration, problems } = await loadConfiguration(dir);
  const spec = configuration.collections.get(name);
  if (spec !== undefined) return spec;
  const wrong = problems.length === 0 ? "" : `; ${quantity(problems.length, "problem")} there`;
  throw new CommandError(`expected a valid collection "${name}" in ${dir}, found none${wrong}`, EXIT.refused, {
    hint: `\`strongroom check-config ${dir}\` shows what is there and what is wrong`,
  });
}

/** When backups were begun, in order. */
async function imaginedTimes(
  spec: CollectionSpec,
  cron: string | undefined,
  spanMs: number,
  now: Date,
): Promise<Date[]> {
  const { parseWindowStart, startsBetween } = await import("../domain/window.ts");
  if (cron === undefined && spec.windows.length === 0)
    throw new UsageError(`"${spec.name}" has no windows; say with --schedule when backups come, such as "0 2 * * *"`);
  let starts = spec.windows.map(({ from }) => from);
  try {
    if (cron !== undefined) starts = [parseWindowStart(cron)];
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    throw new UsageError(`--schedule: ${error.message}`, { cause: error });
  }
  const times = startsBetween(starts, spec.timezone, new Date(now.getTime() - spanMs), now, MAX_BACKUPS);
  if (times.length === 0) throw new UsageError("no backup falls into that time; make --for longer");
  if (times.length === MAX_BACKUPS) throw new UsageError(`more than ${MAX_BACKUPS} backups; make --for shorter`);
  return times;
}

/** The live versions of `strongroom ls COLLECTION --json`. */
async function readHistory(file: string): Promise<GuardedVersion[]> {
  try {
    const { versions } = JSON.parse(await readText(file)) as { versions: readonly Record<string, unknown>[] };
    return versions.filter(({ removedAt }) => removedAt === undefined).map(fromHistory);
  } catch (error) {
    throw new UsageError(`cannot read the history ${file}: ${error instanceof Error ? error.message : String(error)}`, {
      hint: "it is what `strongroom ls COLLECTION --json` prints",
      cause: error,
    });
  }
}

function fromHistory(version: Record<string, unknown>): GuardedVersion {
  const dateOr = <T>(value: unknown, none: T) => (value === undefined ? none : date(value));
  const begunAt = date(version.begunAt);
  const committedAt = dateOr(version.committedAt, begunAt);
  const protectedUntil = dateOr(version.protectedUntil, null);
  return {
    number: BigInt(version.version as number),
    size: BigInt(version.size as number),
    begunAt,
    committedAt,
    held: version.held === true,
    protectedUntil,
    protectedForMs: protectedUntil === null ? null : Math.max(0, protectedUntil.getTime() - committedAt.getTime()),
    damage: typeof version.damage === "string" ? version.damage : "",
    usualSize: version.usualSize === undefined ? null : BigInt(version.usualSize as number),
    confirmedAt: dateOr(version.confirmedAt, null),
  };
}

async function readText(file: string): Promise<string> {
  const { createReadStream } = await import("node:fs");
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of (file === "-" ? process.stdin : createReadStream(file)) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_HISTORY_BYTES) throw new Error("it is larger than 256 MiB");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function date(value: unknown): Date {
  const found = new Date(String(value));
  if (Number.isNaN(found.getTime())) throw new Error(`expected a time, got ${JSON.stringify(value)}`);
  return found;
}

/** Why a version stays, as a table shows it. */
function why({ reason, aside }: SimulatedVersion): string {
  const beside = aside === undefined ? "" : ` (${aside}, takes no place)`;
  if (reason === undefined) return `removed${beside}`;
  return `${typeof reason === "string" ? reason : `${reason.rule} ${reason.place}`}${beside}`;
}

function report({ number, begunAt, reason, aside }: SimulatedVersion) {
  const stays = reason !== undefined;
  const why = stays ? reportReason(reason) : {};
  return { version: Number(number), begunAt: begunAt.toISOString(), stays, ...why, aside };
}

function reportReason(reason: Exclude<SimulatedVersion["reason"], undefined>) {
  return typeof reason === "string" ? { rule: reason } : { rule: reason.rule, place: reason.place };
}

/** `2026-06-30 02:00 Tue`, as the clocks of the zone show it. */
function localTime(at: Date, timezone: string): string {
  const part = new Map(
    new Intl.DateTimeFormat("en-CA", {
      timeZone: timezone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      weekday: "short",
    })
      .formatToParts(at)
      .map(({ type, value }) => [type, value]),
  );
  const day = `${part.get("year")}-${part.get("month")}-${part.get("day")}`;
  return `${day} ${part.get("hour")}:${part.get("minute")} ${part.get("weekday")}`;
}
