import type { Principal } from "../../domain/access.ts";
import type { AuditEvent } from "../../domain/audit.ts";
import type { Configuration } from "../../domain/configuration.ts";
import type { ChangePlan, ObjectName } from "../ports/config-objects.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, Transaction } from "../ports/database.ts";
import { loginName } from "../sessions/credential.ts";
import { changedNames, endFormer, fingerprintsOf, isFormer } from "../sessions/former-sessions.ts";
import type { Log } from "../settings.ts";
import { keepConfirmed, type ManyRemovals } from "./many-removals.ts";

/** The ports for recording a change. */
export interface RecordChangeDeps {
  readonly config: ConfigSource;
  readonly database: Database;
  readonly log: Log;
  /** SHA-256 in hexadecimal. */
  readonly sha256: (text: string) => string;
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

/** What belongs to a change beside its plan. */
export interface ToRecord {
  readonly removals: readonly ManyRemovals[];
  readonly password: PasswordChange | undefined;
  /** The state before the one that was put in force; undefined when it was not. */
  readonly former: Configuration | undefined;
}

/**
 * Keeps what was confirmed, ends the sessions of credentials that the change took or replaced, and writes what was
 * changed in the files into the audit log; where the database fails, the log of the server has it.
 */
export async function recordChange(
  deps: RecordChangeDeps,
  principal: Principal,
  plan: ChangePlan,
  { removals, password, former }: ToRecord,
): Promise<void> {
  const { database, log } = deps;
  const { objects, diff } = plan;
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
      if (former !== undefined) await endSessions(deps, tx, principal, { before: former, after: plan.after });
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

/**
 * Ends the sessions of credentials that a change took or replaced. At once, unlike those that disappear from the files
 * by somebody else's hand: this change was asked for, so no other server can be the one that knows more.
 */
async function endSessions(
  { config, sha256 }: RecordChangeDeps,
  tx: Transaction,
  principal: Principal,
  { before, after }: { readonly before: Configuration; readonly after: Configuration },
): Promise<void> {
  const changed = new Set(changedNames(fingerprintsOf(sha256, before), fingerprintsOf(sha256, after)));
  if (changed.size === 0) return;
  const inForce = fingerprintsOf(sha256, config.current());
  for (const credential of await tx.sessions.validCredentials(tx.now))
    if (changed.has(loginName(credential)) && isFormer(inForce, credential))
      await endFormer(tx, credential, { actor: principal });
}
