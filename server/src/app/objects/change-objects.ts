import type { Principal } from "../../domain/access.ts";
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
import { inTurn, RETRY_MS } from "./configuration-turn.ts";
import { type ManyRemovals, removalWarnings } from "./many-removals.ts";
import { type ExpectedObject, type PasswordChange, recordChange } from "./record-change.ts";
import { objectNotFound, objectsOf } from "./see-objects.ts";

/** The ports for changing configuration objects. */
export interface ChangeObjectsDeps {
  readonly config: ConfigSource;
  /** Keeps two servers from writing at once. */
  readonly database: Database;
  readonly log: Log;
  /** SHA-256 in hexadecimal. */
  readonly sha256: (text: string) => string;
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

/** A change that was made, or would be. */
export interface ChangeResult {
  readonly plan: Pick<ChangePlan, "objects" | "diff" | "warnings" | "problems">;
  /** Why this server would not write it; undefined where it would, or did. */
  readonly readOnly: string | undefined;
}

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
  const done = await inTurn(deps.database, async () => {
    const before = deps.config.current();
    const { planned, removals } = await plan();
    if (planned.files.length > 0) {
      const notInForce = await write(deps, planned, options.password !== undefined);
      // Whom else the directory has or has not by now is for the watch to judge, which waits before it ends anything.
      const former = notInForce === undefined ? before : undefined;
      await recordChange(deps, principal, planned, { removals, password: options.password, former });
      if (notInForce !== undefined) throw notInForce;
    }
    return { plan: planned, readOnly: undefined };
  });
  if (done !== undefined) return done.result;
  throw new DomainError(
    "CONFIGURATION_CONFLICT",
    "others have been changing the configuration for some seconds, and still are; repeat",
    { retryAfterMs: RETRY_MS },
  );
}

/** A change that may be made, and what was confirmed with it. @throws DomainError otherwise */
async function judged(
  { config, database }: ChangeObjectsDeps,
  principal: Principal,
  wanted: WantedChange,
  options: ChangeOptions & { readonly password?: PasswordChange },
): Promise<{ planned: ChangePlan; removals: readonly ManyRemovals[] }> {
  const objects = objectsOf(config);
  const expected = options.password?.expected ?? [];
  // Before the plan too: what is made from older objects may have problems that nobody put there.
  for (const one of expected) requireAsRead(one, (await objects.read(one))?.entry.revision);
  const plan = await objects.plan(wanted);
  requireMayChange(principal, plan.named, options.password !== undefined);
  if (plan.problems.length > 0 && options.dryRun && options.answerFindings === true)
    return { planned: plan, removals: [] };
  if (plan.problems.length > 0) throw objectsInvalid(plan.problems);
  if ("remove" in wanted && plan.objects.length === 0) throw objectNotFound(wanted.remove);
  requireRevision(plan, options.expectedRevision);
  for (const one of expected)
    requireAsRead(
      one,
      plan.objects.find(({ entry }) => entry.kind === one.kind && entry.name === one.name)?.before?.revision,
    );
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

function requireAsRead({ kind, name, revision }: ExpectedObject, now: string | undefined): void {
  if (now === revision) return;
  throw new DomainError(
    "CONFIGURATION_CONFLICT",
    `${kind} "${name}" was changed while the change was made ready; nothing was written, repeat the call`,
    { metadata: { kind, name }, retryAfterMs: RETRY_MS },
  );
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
