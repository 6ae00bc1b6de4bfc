import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { flag, option } from "@strongroom/command-line/option";
import type { CommandSpec, Invocation } from "../command.ts";
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

/** `strongroom apply`. */
export const apply: CommandSpec = {
  name: "apply",
  summary: "put configuration objects in force",
  details:
    "Each document takes the place of the object of its kind and name, or creates it. All are judged together, and " +
    "refused together when anything is wrong. A value <hidden> stays as it is.",
  options: [documentsFile, DRY_RUN, ALLOW_NO_ADMIN, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom apply -f pg-main.yaml --dry-run", "show the difference"],
    ["strongroom apply -f pg-main.yaml", "in force when it ends"],
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
    const answer = await client.admin.applyObjects(
      { documents, dryRun, allowNoAdmin: values.get(ALLOW_NO_ADMIN) },
      CALL,
    );
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
