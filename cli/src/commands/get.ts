import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { flag } from "@strongroom/command-line/option";
import { table } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, withClient } from "../session/session.ts";

const effective = flag({
  name: "effective",
  help: "with the fields that a collection has from its BackupCollectionDefaults",
});

/** `strongroom get`. */
export const get: CommandSpec = {
  name: "get",
  summary: "show configuration objects",
  details:
    "With a name: the object as it is written, in YAML, or as JSON with --json. Passwords, hashes and values of Secrets " +
    "are <hidden>. Without a name: the objects of the kind, in a table.",
  args: [
    ["<kind>", "BackupUser, BackupCollection, BackupCollectionDefaults, BackupOrganization, BackupNotifier or Secret"],
    ["[name]", "name of the object"],
  ],
  options: [effective, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom get BackupCollection", "all collections"],
    ["strongroom get BackupCollection pg-main --effective", "one, with its defaults"],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [kind = "", name] = args;
  return await withClient(context, values, {}, async ({ client, sdk }) => {
    if (name !== undefined) {
      const format = output.isJson ? sdk.ObjectFormat.JSON : sdk.ObjectFormat.YAML;
      const { document } = await client.admin.getObject({ kind, name, effective: values.get(effective), format }, CALL);
      if (output.isJson) output.json(JSON.parse(document));
      else output.line(document.trimEnd());
      return EXIT.ok;
    }
    const objects = await collectPages(async (pageToken) => {
      const { objects: items, nextPageToken } = await client.admin.listObjects({ kind, pageToken }, CALL);
      return { items, nextPageToken };
    });
    if (output.isJson) {
      output.json({
        objects: objects.map((each) => ({
          kind: each.kind,
          name: each.name,
          namespace: each.namespace,
          file: each.file,
          line: each.line,
          revision: each.revision,
        })),
      });
      return EXIT.ok;
    }
    const rows = objects.map((each) => [each.name, each.namespace, `${each.file}:${each.line}`]);
    output.line(table([{ title: "NAME" }, { title: "NAMESPACE" }, { title: "FILE" }], rows));
    return EXIT.ok;
  });
}
