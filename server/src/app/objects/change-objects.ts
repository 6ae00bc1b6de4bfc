import type { Principal } from "../../domain/access.ts";
import type { AuditEvent } from "../../domain/audit.ts";
import { type DocumentToCommit, DomainError, invalidField } from "../../domain/errors.ts";
import { hideSecrets } from "../../objects/hide-secrets.ts";
import type { ConfigProblem } from "../../objects/problem.ts";
import {
  type ChangePlan,
  NotInForceError,
  type ObjectName,
  type PlannedObject,
  SourceChangedError,
  type WantedChange,
} from "../ports/config-objects.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database } from "../ports/database.ts";
import type { Log } from "../settings.ts";
import { type ChangeConfirmations, checkChange, requireMayChange } from "./change-guards.ts";
import { keepConfirmed, type ManyRemovals, removalWarnings } from "./many-removals.ts";
import { objectNotFound, objectsOf } from "./see-objects.ts";

/** The ports for changing configuration objects. */
export interface ChangeObjectsDeps {
  readonly config: ConfigSource;
  /** Keeps two servers from writing at once. */
  readonly database: Database;
  readonly log: Log;
}

/** How a change is to be made. */
export interface ChangeOptions extends ChangeConfirmations {
  /** Nothing is written. */
  readonly dryRun: boolean;
  /** The revision that the one object must have; empty for any. */
  readonly expectedRevision: string;
  /** In a dry run: problems are a part of the result, not an error. */
  readonly answerFindings?: boolean;
}

/** An object that a change was made ready for, and that must not have changed since. */
export interface ExpectedObject extends ObjectName {
  /** As it was read; undefined for one that there was not. */
  readonly revision: string | undefined;
}

/** A change of a password alone, which is written into a Secret or the user itself. */
export interface PasswordChange {
  readonly kind: "access-key.created" | "password.set";
  readonly username: string;
  /** The objects as they were read for it. */
  readonly expected: readonly ExpectedObject[];
}

/** A change that was made, or would be. */
export interface ChangeResult {
  readonly plan: Pick<ChangePlan, "objects" | "diff" | "warnings" | "problems">;
  /** Why this server would not write it; undefined where it would, or did. */
  readonly readOnly: string | undefined;
}

/** Name of the lock that whoever writes the configuration holds. */
const LOCK = "configuration";
/** When a change is to be tried again that met another, in milliseconds. */
const RETRY_MS = 1000;
/** Problems that an error carries. */
const MOST_FINDINGS = 20;
/** Characters of documents that an error carries: it travels in headers, which programs bound at 8 KiB and more. */
const MOST_TO_COMMIT = 3000;

/** Puts documents in force, in place of those of their names. */
export async function applyObjects(
  deps: ChangeObjectsDeps,
  principal: Principal,
  { documents, ...options }: ChangeOptions & { readonly documents: string },
): Promise<ChangeResult> {
  if (documents.trim() === "") throw invalidField("documents", "expected YAML or JSON documents, got nothing");
  return await change(deps, principal, { documents }, options);
}

/** Takes an object out of the configuration. A collection's versions stay, and it is frozen. */
export async function deleteObject(
  deps: ChangeObjectsDeps,
  principal: Principal,
  { kind, name, ...options }: ChangeOptions & ObjectName,
): Promise<ChangeResult> {
  return await change(deps, principal, { remove: { kind, name } }, options);
}

/** Judges a change, and makes it unless it is a dry run: what it says is in force when this returns. */
export async function change(
  deps: ChangeObjectsDeps,
  principal: Principal,
  wanted: WantedChange,
  options: ChangeOptions & { readonly password?: PasswordChange },
): Promise<ChangeResult> {
  requireMayChange(principal, "remove" in wanted ? [wanted.remove] : [], options.password !== undefined);
  const objects = objectsOf(deps.config);
  const plan = async () => await judged(deps, principal, wanted, options);
  if (options.dryRun) {
    const { planned } = await plan();
    if (planned.problems.length > 0) return { plan: planned, readOnly: undefined };
    const store = await objects.storeFor(planned);
    return { plan: planned, readOnly: "readOnly" in store ? store.readOnly : undefined };
  }
  const done = await deps.database.exclusively(LOCK, async () => {
    const { planned, removals } = await plan();
    if (planned.files.length > 0) {
      const notInForce = await write(deps, planned, options.password !== undefined);
      await record(deps, principal, planned, { removals, password: options.password });
      if (notInForce !== undefined) throw notInForce;
    }
    return { plan: planned, readOnly: undefined };
  });
  if (done !== undefined) return done.result;
  throw new DomainError(
    "CONFIGURATION_CONFLICT",
    "somebody else is changing the configuration at this moment; repeat",
    {
      retryAfterMs: RETRY_MS,
    },
  );
}

/** A change that may be made, and what was confirmed with it. @throws DomainError otherwise */
async function judged(
  { config, database }: ChangeObjectsDeps,
  principal: Principal,
  wanted: WantedChange,
  options: ChangeOptions & { readonly password?: PasswordChange },
): Promise<{ planned: ChangePlan; removals: readonly ManyRemovals[] }> {
  const plan = await objectsOf(config).plan(wanted);
  requireMayChange(principal, plan.named, options.password !== undefined);
  if (plan.problems.length > 0 && options.dryRun && options.answerFindings === true)
    return { planned: plan, removals: [] };
  if (plan.problems.length > 0) throw objectsInvalid(plan.problems);
  if ("remove" in wanted && plan.objects.length === 0) throw objectNotFound(wanted.remove);
  requireRevision(plan, options.expectedRevision);
  requireAsRead(plan, options.password?.expected ?? []);
  const guarded = { before: config.current(), plan, confirmations: options, dryRun: options.dryRun };
  const removals = await checkChange({ database }, principal, guarded);
  return { planned: { ...plan, warnings: [...plan.warnings, ...removalWarnings(removals, plan)] }, removals };
}

function requireRevision({ objects }: ChangePlan, expected: string): void {
  if (expected === "") return;
  const [object, ...others] = objects;
  if (object === undefined || others.length > 0)
    throw invalidField("expected_revision", "expected one document beside it, since it is the revision of one object");
  const { entry, before } = object;
  if (before?.revision === expected) return;
  const found = before === undefined ? "does not exist" : `has the revision ${before.revision}`;
  throw new DomainError(
    "CONFIGURATION_CONFLICT",
    `expected ${entry.kind} "${entry.name}" with the revision ${expected}, but it ${found}: somebody changed it; get ` +
      "it again, and repeat the change",
    { metadata: { kind: entry.kind, name: entry.name, revision: before?.revision ?? "" } },
  );
}

function requireAsRead({ objects }: ChangePlan, expected: readonly ExpectedObject[]): void {
  for (const { kind, name, revision } of expected) {
    const before = objects.find(({ entry }) => entry.kind === kind && entry.name === name)?.before;
    if (before?.revision === revision) continue;
    throw new DomainError(
      "CONFIGURATION_CONFLICT",
      `${kind} "${name}" was changed while the change was made ready; nothing was written, repeat the call`,
      { metadata: { kind, name }, retryAfterMs: RETRY_MS },
    );
  }
}

/**
 * Keeps what was confirmed, and writes what was changed in the files into the audit log; where the database fails, the
 * log of the server has it.
 */
async function record(
  { database, log }: ChangeObjectsDeps,
  principal: Principal,
  { objects, diff }: ChangePlan,
  { removals, password }: { removals: readonly ManyRemovals[]; password: PasswordChange | undefined },
): Promise<void> {
  const common = { actor: principal, collectionName: "" };
  const events: AuditEvent[] =
    password !== undefined
      ? [{ ...common, kind: password.kind, object: `BackupUser/${password.username}`, details: {} }]
      : objects
          .filter(({ action }) => action !== "unchanged")
          .map(({ action, entry }) => ({
            ...common,
            kind: action === "deleted" ? "configuration.deleted" : "configuration.applied",
            object: `${entry.kind}/${entry.name}`,
            details: {
              action,
              file: entry.file,
              revision: entry.revision,
              ...(objects.length === 1 ? { difference: diff } : {}),
            },
          }));
  try {
    await database.transaction(async (tx) => {
      await keepConfirmed(tx, principal, removals);
      await tx.audit(...events);
    });
  } catch (error) {
    const what = events.map(({ kind, object }) => `${kind} ${object}`);
    const { user, origin } = principal;
    log.error(
      { err: error, user: user.name, address: origin?.address, changes: what },
      "the configuration was changed, but that could not be written into the audit log",
    );
    throw error;
  }
}

/** Writes the files. @returns the error for the caller where they are written and not in force */
async function write(
  { config }: ChangeObjectsDeps,
  plan: ChangePlan,
  isPassword: boolean,
): Promise<DomainError | undefined> {
  const store = await objectsOf(config).storeFor(plan);
  if ("readOnly" in store) throw readOnlySource(store.readOnly, plan, isPassword);
  try {
    await store.write(plan);
    return undefined;
  } catch (error) {
    if (error instanceof SourceChangedError)
      throw new DomainError(
        "CONFIGURATION_CONFLICT",
        `${error.file} was changed on disk while the change was judged; nothing was written, repeat the change`,
        { metadata: { file: error.file }, retryAfterMs: RETRY_MS, cause: error },
      );
    if (error instanceof NotInForceError)
      return new DomainError(
        "CONFIGURATION_CONFLICT",
        `the change is in the files, but not in force, since others changed them at the same time: ${error.message}`,
        { metadata: { written: "true" }, cause: error },
      );
    throw error;
  }
}

/** What somebody else is to put in place where this server writes nothing. */
export function documentsToCommit(objects: readonly PlannedObject[]): DocumentToCommit[] {
  const changed = objects.filter(({ action }) => action !== "unchanged");
  return changed.map(({ entry, document }) => ({ file: entry.file, document }));
}

function readOnlySource(why: string, { objects }: ChangePlan, isPassword: boolean): DomainError {
  // Whoever asked for a password never saw the other hashes, and has no use for the hash of one that is not shown.
  const changed = objects.map((object) =>
    isPassword ? { ...object, document: hideSecrets(object.entry.kind, object.document) } : object,
  );
  const documents = documentsToCommit(changed);
  const advice = isPassword ? "with the output of `strongroom hash-password` for the hidden value, " : "";
  const length = documents.reduce((sum, { document }) => sum + document.length, 0);
  const whole = length <= MOST_TO_COMMIT;
  return new DomainError(
    "CONFIGURATION_READ_ONLY",
    `this server does not write its configuration: ${why}. Commit the change where the configuration comes from, ` +
      advice +
      (whole ? "the details have the YAML" : "the YAML is too long for an error, a call with dry_run answers with it"),
    { metadata: { why }, toCommit: whole ? documents : [] },
  );
}

/** The configuration would not be valid. */
function objectsInvalid(problems: readonly ConfigProblem[]): DomainError {
  const [first] = problems;
  const { file, line, path, reason } = first!;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
  const where = file === "-" ? `line ${line} of the documents` : `${file}:${line}`;
  return new DomainError(
    "OBJECTS_INVALID",
    `with this change the configuration would not be valid, nothing was written: ${where}: ` +
      `${path === "" ? "" : `${path}: `}${reason}${more}`,
    { metadata: { problems: String(problems.length) }, findings: problems.slice(0, MOST_FINDINGS) },
  );
}
