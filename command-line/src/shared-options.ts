import { flag, option, type Secret } from "./option.ts";

/** Options that commands of the client and commands of the server take, with one meaning in both. */
export const SHARED = {
  json: flag({ name: "json", help: "print JSON instead of text" }),
  quiet: flag({ name: "quiet", help: "no progress and no remarks, errors only" }),
  collection: option({
    name: "collection",
    value: "name",
    help: "name of the collection, instead of the argument; of init, name of the first one",
    alias: "BM_COLLECTION_ID",
  }),
  envFile: option({
    name: "env-file",
    value: "file",
    help:
      "read variables from this file first, NAME=VALUE a line, as the systemd unit does; they win over the " +
      "environment",
    argumentsOnly: true,
  }),
  passwordFile: option({ name: "password-file", value: "file", help: "file with the password" }),
  passwordStdin: flag({ name: "password-stdin", help: "read the password from standard input" }),
} as const;

/** The password of a user, from the environment. */
export const PASSWORD: Secret = { env: "STRONGROOM_PASSWORD", help: "password" };
