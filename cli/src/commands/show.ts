import type { Version } from "@strongroom/client-sdk";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { pairs } from "@strongroom/command-line/table";
import { formatSize } from "@strongroom/protocol/sizes";
import type { CommandSpec, Invocation } from "../command.ts";
import type { Sdk } from "../context.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";
import { formatAge, formatTime, type Timestamp } from "../terminal/format.ts";
import { enumWord, principal, versionReport } from "../terminal/reports.ts";
import { versionNumber } from "../version-argument.ts";

/** `strongroom show`. */
export const show: CommandSpec = {
  name: "show",
  summary: "describe one version",
  args: [
    ["<collection>", "name of the collection"],
    ["[version]", "number of the version, such as 7 or v7; the newest when it is left out"],
  ],
  options: [...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom show pg-main", "the newest version"],
    ["strongroom show pg-main 7 --json", "what is known of version 7, for scripts"],
  ],
  async run({ args, values, output, context }: Invocation): Promise<ExitCode> {
    const [collection = "", given] = args;
    const which =
      given === undefined
        ? { case: "newest" as const, value: true }
        : { case: "number" as const, value: versionNumber(given) };
    return await withClient(context, values, {}, async ({ client, sdk }) => {
      const { version } = await client.versions.getVersion({ collection, which }, CALL);
      if (version === undefined) return EXIT.ok;
      if (output.isJson) output.json(versionReport(version, sdk));
      else output.line(versionText(version, sdk, context.now()));
      return EXIT.ok;
    });
  },
};

function versionText(version: Version, sdk: Sdk, now: number): string {
  const { damage, held, protectedUntil } = version;
  const at = (time: Timestamp | undefined) => formatTime(time, version.timezone);
  const encoding = enumWord(sdk.ContentEncoding, version.contentEncoding);
  const encryption = [
    enumWord(sdk.EncryptionFormat, version.encryptionFormat),
    version.armored ? "armored" : "",
    encoding === "none" ? "" : encoding,
  ];
  return pairs([
    ["Version", `${version.number} of ${version.collection}`],
    ["File", version.filename],
    ["Size", `${formatSize(version.sizeBytes)}${version.aboveSoftLimit ? ", above the soft limit" : ""}`],
    ["Encryption", encryption.filter((word) => word !== "").join(", ")],
    ["Encrypted to", recipientsText(version)],
    ["Begun", `${at(version.begunAt)} (${formatAge(version.begunAt, now)})`],
    ["Committed", at(version.committedAt)],
    ["Uploaded by", principal(version.uploadedBy, version.accessKey)],
    ["Held", held ? heldText(version) : undefined],
    ["Protected until", protectedUntil && at(protectedUntil)],
    ["Verified", version.verifiedAt && at(version.verifiedAt)],
    ["Damaged", damage && `${damage.message}${damage.foundAt ? ` (found ${at(damage.foundAt)})` : ""}`],
    ["Unchecked", version.unchecked || undefined],
    ["Warning", version.clientMetadata.warning],
    ["Confirmed", version.confirmedAt && at(version.confirmedAt)],
    ["Time zone", version.timezone || undefined],
    ["Digest", Buffer.from(version.compositeSha256).toString("hex")],
    ["Labels", words(version.labels)],
  ]);
}

function recipientsText({ recipients }: Version): string {
  if (recipients === undefined || recipients.length === 0) return "unknown";
  return recipients.map(({ name, count }) => (count === 1 ? name : `${name} (${count} times)`)).join(", ");
}

/** Why, by whom and since when a version is held. */
export function heldText({ holdReason, heldBy, heldAt, timezone }: Version): string {
  const by = heldBy === "" ? "" : ` by ${heldBy}`;
  const since = heldAt === undefined ? "" : ` since ${formatTime(heldAt, timezone)}`;
  return `${holdReason} (held${by}${since})`;
}

function words(map: Readonly<Record<string, string>>): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}
