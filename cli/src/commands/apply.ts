import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { flag, option } from "@strongroom/command-line/option";
import { shown } from "@strongroom/command-line/shown";
import type { CommandSpec, Invocation } from "../command.ts";
import { ObjectsInvalidError } from "../errors.ts";
import { readInputFile, readSecretFromStdin } from "../files/input-files.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { CALL, withClient } from "../session/session.ts";

const documentsFile = option({
  name: "file",
  short: "f",
  value: "file",
  help: "file with YAML documents or a JSON object, - for standard input",
});

/** Only say what would change; for commands that change the configuration. */
export const DRY_RUN = flag({
  name: "dry-run",
  help: "say what would change, and do nothing",
  argumentsOnly: true,
});

/** The change may leave nobody who administers the server. */
export const ALLOW_NO_ADMIN = flag({
  name: "allow-no-admin",
  help: "confirm that no active systemAdmin with a password may be left",
  argumentsOnly: true,
});

/** Names how many versions go by changed rules. */
const confirmRemovals = option({
  name: "confirm-removals",
  value: "number",
  help: "confirm that so many versions go by the changed rules",
  argumentsOnly: true,
  read: (text) => {
    if (!/^\d{1,9}$/.test(text)) throw new RangeError(`expected a number of versions, got ${shown(text)}`);
    return BigInt(text);
  },
});

/** `strongroom apply`. */
export const apply: CommandSpec = {
  name: "apply",
  summary: "put configuration objects in force",
  details:
    "Each document takes the place of the object of its kind and name, or creates it. All are judged together, and " +
    "refused together when anything is wrong: then every finding is printed with line, field and reason, and the exit " +
    "code is 2. A value <hidden> stays as it is. A change by which more than half of a collection's versions go, now " +
    "or in time (confirmRemovalsAbove), is refused until their number is named.",
  options: [documentsFile, DRY_RUN, ALLOW_NO_ADMIN, confirmRemovals, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom apply -f pg-main.yaml --dry-run", "show the difference"],
    ["strongroom apply -f pg-main.yaml", "in force when it ends"],
    ["strongroom apply -f pg-main.yaml --confirm-removals 23", "though 23 versions go by it"],
    [
      "strongroom get BackupUser alice | sed 's/deactivated: false/deactivated: true/' | strongroom apply -f -",
      "edit one",
    ],
  ],
  run,
};

async function run({ values, output, context }: Invocation): Promise<ExitCode> {
  const file = values.get(documentsFile);
  if (file === undefined)
    throw new UsageError("There are no documents.", { hint: "give -f FILE, or -f - for standard input" });
  const documents =
    file === "-"
      ? await readSecretFromStdin(context.stdin, "documents")
      : (await readInputFile(file, "documents")).toString("utf8");
  const dryRun = values.get(DRY_RUN);
  return await withClient(context, values, {}, async ({ client, sdk }) => {
    const request = {
      documents,
      dryRun,
      allowNoAdmin: values.get(ALLOW_NO_ADMIN),
      confirmRemovals: values.get(confirmRemovals) ?? 0n,
    };
    const answer = await client.admin.applyObjects(request, CALL).catch(async (error: unknown) => {
      const refusal = sdk.toStrongroomError(error);
      if (refusal.reason !== "OBJECTS_INVALID") throw error;
      // An error has room for the first findings only. A server that knows no other answer sends the same error again.
      const { findings, findingCount } = await client.admin.applyObjects(
        { ...request, dryRun: true, answerFindings: true },
        CALL,
      );
      if (findings.length === 0) throw error;
      throw new ObjectsInvalidError(file, findings, findingCount, refusal);
    });
    if (!dryRun) context.achieved?.();
    const changes = answer.changes.map(({ action, object }) => ({
      kind: object?.kind ?? "",
      name: object?.name ?? "",
      action: sdk.ObjectAction[action]?.toLowerCase() ?? String(action),
      file: object?.file,
      revision: object?.revision,
    }));
    if (output.isJson) {
      output.json({
        dryRun,
        changes,
        diff: answer.diff,
        warnings: answer.warnings.map(({ file, line, path, reason }) => ({ file, line, path, reason })),
        readOnlyReason: answer.readOnlyReason || undefined,
      });
      return EXIT.ok;
    }
    if (dryRun && answer.diff !== "") output.line(answer.diff.trimEnd());
    for (const { file, line, path, reason } of answer.warnings)
      output.note(`warning: ${file}:${line}: ${path}: ${reason}`);
    for (const { kind, name, action } of changes)
      output.note(`${kind} ${name}: ${dryRun ? `would be ${action}` : action}`);
    if (answer.readOnlyReason !== "") output.note(`The server would not write it: ${answer.readOnlyReason}.`);
    return EXIT.ok;
  });
}
