import type { ListKeysResponse } from "@strongroom/client-sdk";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { pairs, table } from "@strongroom/command-line/table";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { collectPages } from "../session/pages.ts";
import { CALL, type Connection, withClient } from "../session/session.ts";

/** `strongroom keys`. */
export const keys: CommandSpec = {
  name: "keys",
  summary: "show which keys open which versions",
  details:
    "What a version is encrypted to is read from its header as it is uploaded, and is not authenticated. An OpenPGP " +
    "message names the key id of the subkey that encrypts; an age file names SSH keys only, by a tag, and of its own " +
    "keys no more than how many there are.",
  args: [["[collection]", "name of the collection; without it, all that you may see"]],
  options: [OPTIONS.lost, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom keys pg-main", "the keys, and how many versions each opens"],
    ["strongroom keys --lost 0123456789ABCDEF", "which versions of all collections would be lost with this key"],
  ],
  async run({ args, values, output, context }: Invocation): Promise<ExitCode> {
    const [collection] = args;
    const lost = [...values.get(OPTIONS.lost)];
    return await withClient(context, values, {}, async (connection) => {
      const names = collection === undefined ? await collectionNames(connection) : [collection];
      const found: { collection: string; answer: ListKeysResponse }[] = [];
      for (const name of names)
        found.push({
          collection: name,
          answer: await connection.client.versions.listKeys({ collection: name, lost }, CALL),
        });
      if (output.isJson) output.json({ collections: found.map((one) => report(one.collection, one.answer)) });
      else for (const text of lost.length > 0 ? lostTexts(found) : [keysTable(found)]) output.line(text);
      return EXIT.ok;
    });
  },
};

async function collectionNames({ client }: Connection): Promise<string[]> {
  return await collectPages(async (pageToken) => {
    const { collections, nextPageToken } = await client.collections.listCollections({ pageToken }, CALL);
    return { items: collections.map(({ name }) => name), nextPageToken };
  });
}

function report(collection: string, { keys, unknown, lost, uncertain }: ListKeysResponse) {
  return {
    collection,
    keys: keys.map(({ recipient, versions, alone, newestVersionNumber }) => ({
      key: recipient,
      versions,
      alone,
      newestVersion: newestVersionNumber,
    })),
    unknown: unknown?.numbers ?? [],
    lost: lost?.numbers ?? [],
    uncertain: uncertain?.numbers ?? [],
  };
}

function keysTable(found: readonly { collection: string; answer: ListKeysResponse }[]): string {
  const rows = found.flatMap(({ collection, answer: { keys, unknown } }) => [
    ...keys.map((key) => [
      collection,
      key.recipient,
      String(key.versions),
      String(key.alone),
      String(key.newestVersionNumber),
    ]),
    ...((unknown?.count ?? 0) > 0
      ? [[collection, "unknown", String(unknown!.count), "", String(unknown!.numbers[0])]]
      : []),
  ]);
  return table(
    [
      { title: "COLLECTION" },
      { title: "KEY" },
      { title: "VERSIONS", align: "right" },
      { title: "ONLY THIS", align: "right" },
      { title: "NEWEST", align: "right" },
    ],
    rows,
  );
}

/** What of each collection would be lost. */
function lostTexts(found: readonly { collection: string; answer: ListKeysResponse }[]): string[] {
  return found.map(({ collection, answer: { lost, uncertain, unknown } }) =>
    pairs([
      ["Collection", collection],
      ["Lost", setText(lost) || "no version"],
      ["Uncertain", setText(uncertain)],
      ["Unknown", setText(unknown)],
    ]),
  );
}

function setText(set: ListKeysResponse["lost"]): string {
  if (set === undefined || set.count === 0) return "";
  const more = set.count > set.numbers.length ? ` and ${set.count - set.numbers.length} more` : "";
  return `${set.count} (${set.numbers.join(", ")}${more})`;
}
