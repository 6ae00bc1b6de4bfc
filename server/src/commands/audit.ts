import { CommandError, UsageError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import { jsonLine } from "@strongroom/command-line/json";
import { flag, option } from "@strongroom/command-line/option";
import { SHARED } from "@strongroom/command-line/shared-options";
import { quantity } from "@strongroom/protocol/quantity";
import type { StoredHead } from "../app/audit/heads.ts";
import type { AuditReport } from "../app/audit/verify-log.ts";
import type { AuditVerifier } from "../app/ports/audit-key.ts";
import type { OperatorCommand, OperatorInvocation } from "./context.ts";
import { onData, openData, requireDirectory } from "./open-data.ts";
import { DATA_OPTIONS, SERVE } from "./options.ts";
import { dataOptions } from "./settings.ts";

const PUBLIC_KEY = option({
  name: "audit-public-key",
  value: "file",
  help: "the public key of the heads, or several, in PEM",
});
const KNOWN_HEAD = option({
  name: "known-head",
  value: "file",
  help: "a head that was kept elsewhere, as a file: finds out also who owns both database and storage",
});
const EXPORT = option({
  name: "export",
  value: "file",
  help: "verify the rows of this file, which `strongroom audit export` wrote, instead of a database",
});
const YES = flag({ name: "yes", help: "do it", argumentsOnly: true });

/** `strongroom audit keygen`. */
export const auditKeygen: OperatorCommand = {
  name: "audit-keygen",
  summary: "make the key that signs the audit log",
  details:
    "Makes an Ed25519 key pair. The private key is for --audit-key-file of every server of the installation: a file " +
    "that is neither in the database nor in the storage. Keep the public key where you verify, away from the servers.",
  options: [SERVE.auditKeyFile],
  examples: [
    ["strongroom audit keygen --audit-key-file /etc/strongroom/audit.key", "writes audit.key and audit.key.pub"],
  ],
  run: async ({ values, context }) => {
    const file = values.get(SERVE.auditKeyFile);
    if (file === undefined) throw new UsageError("--audit-key-file FILE is missing: where the key goes");
    const { makeAuditKey } = await import("../adapters/audit-key/audit-key.ts");
    await refusing(makeAuditKey(file));
    context.stdout.write(`Made ${file} (private, for --audit-key-file) and ${file}.pub (public, to verify with).\n`);
    return EXIT.ok;
  },
};

/** `strongroom audit verify`. */
export const auditVerify: OperatorCommand = {
  name: "audit-verify",
  summary: "compare the audit log with its signed heads",
  details:
    "Finds every row that was altered, removed, inserted or moved before the last signed head, also by somebody who " +
    "owns the database, and heads that were replaced; says which rows no head covers yet. It reads database and " +
    "storage itself and asks no server. With the embedded database stop the server, or give --export. Exit code 6: " +
    "something was changed.",
  options: [PUBLIC_KEY, KNOWN_HEAD, EXPORT, SHARED.json, ...DATA_OPTIONS],
  examples: [
    ["strongroom audit verify --audit-public-key audit.key.pub --data /var/lib/strongroom", "on the server's machine"],
    [
      "strongroom audit verify --audit-public-key audit.key.pub --export audit.jsonl --storage s3://backups/strongroom",
      "an export, while the server runs",
    ],
  ],
  run: verify,
};

/** `strongroom audit accept-loss`. */
export const auditAcceptLoss: OperatorCommand = {
  name: "audit-accept-loss",
  summary: "go on with the audit log after database or storage was put back",
  details:
    "After an older copy of the database was put back, or it was rebuilt by `recover`, rows that heads have signed are " +
    "gone; after an older copy of the storage was put back, heads are. Servers sign no more then. This writes a signed " +
    "head which says so. Verifications mention it from then on.",
  options: [YES, SERVE.auditKeyFile, ...DATA_OPTIONS],
  examples: [["strongroom audit accept-loss --audit-key-file /etc/strongroom/audit.key --yes", "sign the loss"]],
  run: async ({ values, context }) => {
    const file = values.get(SERVE.auditKeyFile);
    if (file === undefined) throw new UsageError("--audit-key-file is missing: the loss is signed");
    if (!values.get(YES))
      throw new UsageError("this signs that events are lost; look first (`audit verify`), then add --yes");
    const options = await dataOptions(values, context.env);
    return await onData(options, context, async (log) => {
      const [{ openAuditKey }, { acceptLoss, NoAuditLossError }] = await Promise.all([
        import("../adapters/audit-key/audit-key.ts"),
        import("../app/audit/accept-loss.ts"),
      ]);
      const signer = await refusing(openAuditKey(file));
      const opened = await openData(options, log);
      try {
        const head = await acceptLoss({ ...opened, signer });
        const { fromPlace } = head.lost.at(-1)!;
        context.stdout.write(
          `Head ${head.sequence} says that the rows from ${fromPlace} on, or the heads that signed them, were lost.\n`,
        );
        return EXIT.ok;
      } catch (error) {
        if (error instanceof NoAuditLossError) throw new CommandError(error.message, EXIT.refused, { cause: error });
        throw error;
      } finally {
        await opened.database.close();
        await opened.store.close();
      }
    });
  },
};

async function verify({ values, context }: OperatorInvocation): Promise<ExitCode> {
  const keyFile = values.get(PUBLIC_KEY);
  if (keyFile === undefined) throw new UsageError("--audit-public-key FILE is missing: what heads are verified with");
  const options = await dataOptions(values, context.env);
  const [{ openAuditPublicKeys }, { checkedHead }] = await Promise.all([
    import("../adapters/audit-key/audit-key.ts"),
    import("../app/audit/heads.ts"),
  ]);
  const keys = await refusing(openAuditPublicKeys(keyFile));
  const keptFile = values.get(KNOWN_HEAD);
  const kept = keptFile === undefined ? undefined : checkedHead(keptFile, await textOf(keptFile), keys);
  const exported = values.get(EXPORT);
  return await onData(options, context, async (log) => {
    const report =
      exported === undefined
        ? await ofDatabase(options, log, keys, kept)
        : await ofExport(options, log, keys, kept, exported);
    tell(report, values.get(SHARED.json), context.stdout);
    return report.problems.length > 0 ? EXIT.integrity : EXIT.ok;
  });
}

type Options = Awaited<ReturnType<typeof dataOptions>>;
type DataLog = Parameters<typeof openData>[1];

async function ofDatabase(options: Options, log: DataLog, keys: AuditVerifier, kept: StoredHead | undefined) {
  const { verifyDatabase } = await import("../app/audit/read-log.ts");
  const opened = await openData(options, log);
  try {
    return await verifyDatabase({ ...opened, keys }, { kept });
  } finally {
    await opened.database.close();
    await opened.store.close();
  }
}

async function ofExport(
  options: Options,
  log: DataLog,
  keys: AuditVerifier,
  kept: StoredHead | undefined,
  file: string,
): Promise<AuditReport> {
  const [{ openStore }, { storeInstallation }, { storedHeads }, { exportedRows }, { verifyLog }] = await Promise.all([
    import("../adapters/stores.ts"),
    import("../app/installation.ts"),
    import("../app/audit/heads.ts"),
    import("../app/audit/read-export.ts"),
    import("../app/audit/verify-log.ts"),
  ]);
  await requireDirectory(options.storage, "--data and --storage");
  const store = await openStore(options.storage, log);
  try {
    const installation = await storeInstallation(store);
    if (installation === undefined)
      throw new CommandError("the storage is empty, or not one of Strongroom; check --storage", EXIT.refused);
    const rows = exportedRows(await linesOf(file));
    return await verifyLog({ rows, heads: storedHeads(store, keys), installation, kept, now: new Date() });
  } finally {
    await store.close();
  }
}

async function linesOf(file: string): Promise<AsyncIterable<string>> {
  const { open } = await import("node:fs/promises");
  return (await refusing(open(file))).readLines();
}

async function textOf(file: string): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  return await refusing(readFile(file, "utf8"));
}

/** Files that cannot be used are a wrong option. @throws UsageError */
async function refusing<T>(work: Promise<T>): Promise<T> {
  return await work.catch((error: Error) => {
    throw new UsageError(error.message, { cause: error });
  });
}

function tell(report: AuditReport, json: boolean, stdout: OperatorInvocation["context"]["stdout"]): void {
  const { problems, notes, rows, head, tail } = report;
  if (json) {
    const facts =
      head === undefined ? undefined : { sequence: head.sequence, place: head.place, at: head.at, hash: head.hash };
    stdout.write(jsonLine({ ok: problems.length === 0, problems, notes, rows, head: facts, tail }));
    return;
  }
  for (const problem of problems) stdout.write(`CHANGED: ${problem}\n`);
  for (const note of notes) stdout.write(`note: ${note}\n`);
  if (head !== undefined)
    stdout.write(
      `${quantity(rows, "row")} ${rows === 1 ? "is" : "are"} what head ${head.sequence} of ${head.at.toISOString()} signed, up to ${head.place}\n`,
    );
  stdout.write(
    tail.rows === 0
      ? "no row is without a head\n"
      : `at risk: ${quantity(tail.rows, "row")} that no head covers yet, of the last ${tail.seconds} s\n`,
  );
}
