import { open, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { OptionValues } from "@strongroom/command-line/values";
import { makeFolder } from "@strongroom/protocol/make-folder";
import type { CommandSpec, Invocation } from "../command.ts";
import { passphraseFrom } from "../encryption-choice.ts";
import { OPTIONS, OUTPUT_OPTIONS, SECRETS } from "../options.ts";

/** `strongroom keygen`. */
export const keygen: CommandSpec = {
  name: "keygen",
  summary: "make an OpenPGP or age key pair",
  details:
    "Writes NAME.pub.asc and NAME.key.asc, or NAME.age.pub and NAME.age.key; the private key with mode 0600. " +
    "Existing files are never overwritten.",
  options: [
    OPTIONS.type,
    OPTIONS.name,
    OPTIONS.email,
    OPTIONS.outDir,
    OPTIONS.out,
    OPTIONS.passphraseFile,
    ...OUTPUT_OPTIONS,
  ],
  secrets: [SECRETS.passphrase],
  examples: [
    ["strongroom keygen --name backup --email backup@example.org", "OpenPGP: backup.pub.asc and backup.key.asc"],
    ["strongroom keygen --type age --name backup --out-dir /media/usb", "age: backup.age.pub and backup.age.key"],
    ["strongroom keygen --name backup --passphrase-file passphrase.txt", "with a protected private key"],
  ],
  run,
};

interface KeyPair {
  readonly publicFile: string;
  readonly privateFile: string;
  /** How the private key is protected, for people; and for programs, undefined when it is not. */
  readonly protection: string;
  readonly passphraseFrom: string | undefined;
  readonly make: () => Promise<{ publicText: string; privateText: string; id: string }>;
}

async function run(invocation: Invocation): Promise<ExitCode> {
  const { values, output } = invocation;
  const type = values.get(OPTIONS.type);
  const pair = type === "age" ? await agePair(invocation) : await openPgpPair(invocation);
  for (const path of [pair.publicFile, pair.privateFile]) await refuseExisting(path);
  const { publicText, privateText, id } = await pair.make();
  await makeFolder(dirname(pair.publicFile));
  await writeNew(pair.privateFile, privateText, 0o600);
  try {
    await writeNew(pair.publicFile, publicText, 0o644);
  } catch (error) {
    await rm(pair.privateFile, { force: true });
    throw error;
  }
  invocation.context.achieved?.();
  if (output.isJson) {
    output.json({
      type,
      [type === "age" ? "recipient" : "fingerprint"]: id,
      publicKey: pair.publicFile,
      privateKey: pair.privateFile,
      passphraseFrom: pair.passphraseFrom,
    });
    return EXIT.ok;
  }
  output.note(
    [
      `Public key:  ${pair.publicFile} (${id})`,
      `Private key: ${pair.privateFile} (${pair.protection})`,
      "",
      "Keep the private key away from the server and from the machines that make backups: at least two copies, " +
        "in separate locations.",
      "Without it no backup can be read, by anyone. Machines that make backups need the public key only:",
      `  strongroom backup COLLECTION --public-key ${pair.publicFile} -c "COMMAND"`,
      "Try a restore before you rely on it:",
      `  strongroom restore COLLECTION ${type === "age" ? "--identity" : "--private-key"} ${pair.privateFile} ` +
        "--output FILE",
    ].join("\n"),
  );
  return EXIT.ok;
}

async function openPgpPair({ values, context }: Invocation): Promise<KeyPair> {
  const base = basePath(values);
  const passphrase = await passphraseFrom(values, context);
  const email = values.get(OPTIONS.email);
  return {
    publicFile: `${base}.pub.asc`,
    privateFile: `${base}.key.asc`,
    protection:
      passphrase === undefined ? "without a passphrase" : `protected by the passphrase from ${passphrase.origin}`,
    passphraseFrom: passphrase?.origin,
    make: async () => {
      const { generateOpenPgpKey } = await context.sdk();
      const name = values.get(OPTIONS.name) ?? basename(base);
      const key = await generateOpenPgpKey({
        name,
        ...(email === undefined ? {} : { email }),
        ...(passphrase === undefined ? {} : { passphrase: passphrase.value }),
      });
      return { publicText: key.publicKey, privateText: key.privateKey, id: key.fingerprint };
    },
  };
}

async function agePair({ values, context }: Invocation): Promise<KeyPair> {
  if (values.source(OPTIONS.passphraseFile) === "flag") {
    throw new UsageError("An age key has no passphrase.", {
      hint: "encrypt the file afterwards: age -p NAME.age.key > NAME.age.key.age",
    });
  }
  if (values.source(OPTIONS.email) === "flag")
    throw new UsageError("An age key holds no e-mail address; --email is for OpenPGP.");
  const base = basePath(values);
  return {
    publicFile: `${base}.age.pub`,
    privateFile: `${base}.age.key`,
    protection: "without a passphrase: an age key has none",
    passphraseFrom: undefined,
    make: async () => {
      const { generateAgeKey } = await context.sdk();
      const { recipient, identity } = await generateAgeKey();
      // The form of age-keygen, which also `age -i` and `age -R` read.
      const made = new Date(context.now()).toISOString().replace(/\.\d+/, "");
      return {
        publicText: `${recipient}\n`,
        privateText: `# created: ${made}\n# public key: ${recipient}\n${identity}\n`,
        id: recipient,
      };
    },
  };
}

function basePath(values: OptionValues): string {
  const out = values.get(OPTIONS.out);
  if (out !== undefined && out !== "" && !out.endsWith("/")) return out;
  const name = values.get(OPTIONS.name);
  if (name === undefined)
    throw new UsageError("--name is required", { hint: "for example: strongroom keygen --name backup" });
  const file = name
    .trim()
    .replace(/[^\p{L}\p{N}._-]+/gu, "-")
    .replace(/^[-.]+|[-.]+$/g, "");
  if (file === "")
    throw new UsageError(`--name "${name}" leaves no letter for a file name.`, { hint: "give --out PATH besides" });
  return join(values.get(OPTIONS.outDir), file);
}

async function refuseExisting(path: string): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (found !== undefined)
    throw new UsageError(`${path} exists, and keys are never overwritten.`, {
      hint: "choose another --name, --out-dir or --out",
    });
}

async function writeNew(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, "wx", mode);
  try {
    await file.writeFile(text.endsWith("\n") ? text : `${text}\n`);
    await file.sync();
  } catch (error) {
    // Half a key is none, and would block the next try.
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}
