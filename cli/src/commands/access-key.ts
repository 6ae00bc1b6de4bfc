import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { list } from "@strongroom/command-line/option";
import type { CommandSpec, Invocation } from "../command.ts";
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SESSION_SECRETS } from "../options.ts";
import { rolesOf } from "../session/scope-argument.ts";
import { CALL, withClient } from "../session/session.ts";

const collections = list({
  name: "for-collection",
  value: "name",
  help: "collection that the access key is for",
});

const roles = list({
  name: "role",
  value: "role",
  help: "what the access key may do there, as far as its user may: backupUploader, backupDownloader, ...",
});

const addresses = list({
  name: "only-from",
  value: "address",
  help: "address or CIDR range that the access key may be used from, anywhere without it",
});

/** `strongroom access-key`. */
export const accessKey: CommandSpec = {
  name: "access-key",
  summary: "give a user an access key, and print its password once",
  details:
    "An access key is another login of the user, `user$key`, with fewer rights: what a machine needs. The server makes " +
    "its password and keeps the hash; the password is printed on standard output, now and never again. Needs " +
    "systemAdmin, or userManager for users without more roles.",
  args: [
    ["<user>", "name of the user"],
    ["<name>", "name of the key, the part after the $ of its login"],
  ],
  options: [collections, roles, addresses, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS],
  secrets: SESSION_SECRETS,
  examples: [
    ["strongroom access-key alice nightly --for-collection pg-main --role backupUploader", "logs in as alice$nightly"],
    [
      "(umask 077; strongroom access-key alice ci --for-collection web --role backupUploader --only-from 10.0.0.0/8 >ci)",
      "the password goes into a file",
    ],
  ],
  run,
};

async function run({ args, values, output, context }: Invocation): Promise<ExitCode> {
  const [user = "", name = ""] = args;
  if (values.get(collections).length === 0)
    throw new UsageError("The access key would be for nothing.", { hint: "give --for-collection NAME" });
  if (values.get(roles).length === 0)
    throw new UsageError("The access key would be allowed nothing.", { hint: "give --role backupUploader" });
  return await withClient(context, values, {}, async ({ client, sdk }) => {
    const { username, password } = await client.admin.createAccessKey(
      {
        user,
        accessKey: name,
        collections: [...values.get(collections)],
        roles: rolesOf("--role", values.get(roles), sdk),
        restrictByIp: [...values.get(addresses)],
      },
      CALL,
    );
    context.achieved?.();
    if (output.isJson) output.json({ username, password });
    else {
      output.note(`${username} may log in from now on. Its password stands nowhere else, keep it:`);
      output.line(password);
    }
    return EXIT.ok;
  });
}
