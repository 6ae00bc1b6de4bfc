import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type AdminService,
  type DeleteObjectRequest,
  ObjectAction,
  ObjectFormat,
  ObjectFormatSchema,
} from "@strongroom/gen/strongroom/v1/admin_service_pb";
import type { Role as RoleMessage } from "@strongroom/gen/strongroom/v1/resources_pb";
import {
  MAX_DOCUMENTS_BYTES,
  MAX_LOGIN_NAME_LENGTH,
  MAX_NAME_LENGTH,
  MAX_SCOPE_ELEMENTS,
  MAX_SCOPE_ROLES,
  PAGE,
} from "@strongroom/protocol/limits";
import { listAuditEvents } from "../app/audit/list-log.ts";
import { type TestNotifierDeps, testNotifier } from "../app/notifications/test-notifier.ts";
import {
  applyObjects,
  type ChangeOptions,
  type ChangeResult,
  deleteObject,
  documentsToCommit,
} from "../app/objects/change-objects.ts";
import { createAccessKey, type PasswordDeps, setPassword } from "../app/objects/passwords.ts";
import { getObject, listObjects, OBJECT_KINDS, type SeeObjectsDeps } from "../app/objects/see-objects.ts";
import type { ObjectEntry, ObjectName, PlannedObject } from "../app/ports/config-objects.ts";
import { getServerStatus, type StatusDeps } from "../app/upkeep/server-status.ts";
import type { UpkeepRuns } from "../app/upkeep/upkeep-runs.ts";
import { MAX_ERROR_LENGTH, plainText } from "../calls/plain-text.ts";
import type { AuditEntry } from "../domain/audit-chain.ts";
import type { Role } from "../domain/configuration.ts";
import { invalidField } from "../domain/errors.ts";
import { callerOf } from "./connect-calls.ts";
import { roleOf, time } from "./messages.ts";
import { statusMessage } from "./server-status-message.ts";
import { collectionNameOf, enumName, pagePosition, pageSizeOf, pageToken, textOf, versionCountOf } from "./shapes.ts";

/** Shorter ones are guessed; those that the server makes have 26. */
const LEAST_PASSWORD_LENGTH = 12;
/** A longer password is refused before it is hashed. */
const MAX_PASSWORD_LENGTH = 1024;

/** Findings of one answer. */
const MOST_FINDINGS = 1000;

/** The ports of all of administration. */
export type AdminDeps = SeeObjectsDeps &
  PasswordDeps &
  TestNotifierDeps &
  StatusDeps & { readonly upkeep: Pick<UpkeepRuns, "sweep" | "verify"> };

/** AdminService of the contract. */
export function adminService(deps: AdminDeps): ServiceImpl<typeof AdminService> {
  return {
    async listAuditEvents(req, context) {
      const before = pagePosition("audit events", req.pageToken, /^\d{1,18}$/);
      const given = (text: string) => (text === "" ? undefined : text);
      const { events, nextBefore } = await listAuditEvents(deps, callerOf(context.values), {
        of: {
          from: dateOf("logged_after", req.loggedAfter),
          before: dateOf("logged_until", req.loggedUntil),
          actor: req.user === "" ? undefined : `user:${textOf("user", req.user, MAX_NAME_LENGTH)}`,
          collectionName: given(textOf("collection", req.collection, MAX_NAME_LENGTH)),
          kind: given(textOf("kind", req.kind, MAX_NAME_LENGTH)),
        },
        before: before === undefined ? undefined : BigInt(before),
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return { events: events.map(auditMessage), nextPageToken: pageToken("audit events", nextBefore?.toString()) };
    },

    async getObject(req, context) {
      const { entry, document } = await getObject(deps, callerOf(context.values), {
        ...objectNameOf(req),
        effective: req.effective,
        format: formatOf(req.format),
      });
      return { object: objectMessage(entry), document };
    },

    async listObjects(req, context) {
      const { objects, nextAfter } = listObjects(deps, callerOf(context.values), {
        kind: req.kind === "" ? "" : kindOf(req.kind),
        namespace: textOf("namespace", req.namespace, MAX_NAME_LENGTH),
        after: pagePosition("objects", req.pageToken, /^[^\n]{1,400}$/),
        pageSize: pageSizeOf(req.pageSize, PAGE),
      });
      return { objects: objects.map(objectMessage), nextPageToken: pageToken("objects", nextAfter) };
    },

    async applyObjects(req, context) {
      const bytes = Buffer.byteLength(req.documents);
      if (bytes > MAX_DOCUMENTS_BYTES)
        throw invalidField("documents", `expected at most ${MAX_DOCUMENTS_BYTES} bytes, got ${bytes}; split them`);
      const { documents } = req;
      const { plan, readOnly } = await applyObjects(deps, callerOf(context.values), {
        documents,
        ...optionsOf(req),
        confirmRemovals: versionCountOf("confirm_removals", req.confirmRemovals),
        answerFindings: req.answerFindings,
      });
      return {
        changes: plan.objects.map(changeMessage),
        diff: plan.diff,
        warnings: plan.warnings.map(findingMessage),
        findings: plan.problems.slice(0, MOST_FINDINGS).map(findingMessage),
        findingCount: plan.problems.length,
        readOnlyReason: readOnly ?? "",
        toCommit: readOnly === undefined ? [] : documentsToCommit(plan.objects),
      };
    },

    async deleteObject(req, context) {
      const object = { ...objectNameOf(req), ...optionsOf(req) };
      const { plan, readOnly } = await deleteObject(deps, callerOf(context.values), object);
      return { change: changeMessage(plan.objects[0]!), diff: plan.diff, readOnlyReason: readOnly ?? "" };
    },

    async testNotifier(req, context) {
      if (req.name === "") throw invalidField("name", "expected the name of a BackupNotifier");
      const name = textOf("name", req.name, MAX_NAME_LENGTH);
      const { ok, answer } = await testNotifier(deps, callerOf(context.values), { name, signal: context.signal });
      return { delivered: ok, answer };
    },

    async createAccessKey(req, context) {
      const { username, password, plan } = await createAccessKey(deps, callerOf(context.values), {
        userName: loginName("user", req.user),
        accessKey: loginName("access_key", req.accessKey),
        collections: keyCollectionsOf(req.collections),
        roles: keyRolesOf(req.roles),
        restrictByIp: namesOf("restrict_by_ip", req.restrictByIp),
      });
      return { username, password, changes: plan.objects.map(changeMessage) };
    },

    async setPassword(req, context) {
      const { length } = req.password;
      if (length > 0 && (length < LEAST_PASSWORD_LENGTH || length > MAX_PASSWORD_LENGTH))
        throw invalidField(
          "password",
          `expected ${LEAST_PASSWORD_LENGTH} to ${MAX_PASSWORD_LENGTH} characters, or none`,
        );
      if (req.username === "") throw invalidField("username", "expected the name of a user, or user$key");
      const { username, password, plan } = await setPassword(deps, callerOf(context.values), {
        username: textOf("username", req.username, MAX_LOGIN_NAME_LENGTH),
        password: req.password,
      });
      return { username, password: password ?? "", changes: plan.objects.map(changeMessage) };
    },

    async getServerStatus(_req, context) {
      return statusMessage(await getServerStatus(deps, callerOf(context.values)));
    },

    async runSweep(_req, context) {
      return { finished: await deps.upkeep.sweep(callerOf(context.values)) };
    },

    async runVerification(req, context) {
      const collection = req.collection === "" ? "" : collectionNameOf(req.collection);
      return { started: await deps.upkeep.verify(callerOf(context.values), collection) };
    },
  };
}

/** An object as a message. */
export function objectMessage({ kind, name, namespace, file, line, revision }: ObjectEntry) {
  return { kind, name, namespace, file, line, revision };
}

/** What is said of an object, as long as a text may be: it may repeat what the caller sent. */
function findingMessage({ file, line, path, reason }: ChangeResult["plan"]["problems"][number]) {
  const bounded = (text: string) => plainText(text, MAX_ERROR_LENGTH);
  return { file: bounded(file), line, path: bounded(path), reason: bounded(reason) };
}

const ACTIONS: Readonly<Record<PlannedObject["action"], ObjectAction>> = {
  created: ObjectAction.CREATED,
  changed: ObjectAction.CHANGED,
  unchanged: ObjectAction.UNCHANGED,
  deleted: ObjectAction.DELETED,
};

function changeMessage({ action, entry }: PlannedObject) {
  return { action: ACTIONS[action], object: objectMessage(entry) };
}

function optionsOf(req: Pick<DeleteObjectRequest, "dryRun" | "expectedRevision" | "allowNoAdmin">): ChangeOptions {
  const { dryRun, allowNoAdmin } = req;
  const expectedRevision = textOf("expected_revision", req.expectedRevision, MAX_NAME_LENGTH);
  return { dryRun, allowNoAdmin, expectedRevision, confirmRemovals: 0n };
}

function loginName(field: string, value: string): string {
  textOf(field, value, MAX_NAME_LENGTH);
  if (!/^[A-Za-z0-9][A-Za-z0-9@._-]*$/.test(value))
    throw invalidField(field, 'expected letters, digits, "@", ".", "_" and "-", beginning with a letter or digit');
  return value;
}

function namesOf(field: string, values: readonly string[]): string[] {
  if (values.length > MAX_SCOPE_ELEMENTS)
    throw invalidField(field, `expected at most ${MAX_SCOPE_ELEMENTS}, got ${values.length}`);
  return values.map((value, index) => textOf(`${field}[${index}]`, value, MAX_NAME_LENGTH));
}

function keyCollectionsOf(values: readonly string[]): string[] {
  if (values.length === 0)
    throw invalidField("collections", "expected at least one collection, since a key for none may do nothing");
  return namesOf("collections", values);
}

function keyRolesOf(values: readonly RoleMessage[]): Role[] {
  const roles = new Set(values.map((value) => roleOf(value)));
  const known = [...roles].flatMap((role) => role ?? []);
  if (known.length === 0 || known.length < roles.size || values.length > MAX_SCOPE_ROLES)
    throw invalidField("roles", "expected roles such as ROLE_BACKUP_UPLOADER, each once");
  return known;
}

function dateOf(field: string, value: Timestamp | undefined): Date | undefined {
  if (value === undefined) return undefined;
  const date = timestampDate(value);
  const isFar = Number.isNaN(date.getTime()) || Math.abs(date.getTime()) > 253_402_300_799_000;
  if (isFar) throw invalidField(field, "expected a time before the year 10000");
  return date;
}

function auditMessage(row: AuditEntry) {
  const { at, collectionName: collection, place, previousHash, hash, ordinal: _, ...rest } = row;
  const nothing = new Uint8Array();
  return {
    ...rest,
    collection,
    loggedAt: time(at),
    place: place ?? 0n,
    previousHash: previousHash ?? nothing,
    hash: hash ?? nothing,
  };
}

function objectNameOf({ kind, name }: { kind: string; name: string }): ObjectName {
  if (name === "") throw invalidField("name", "expected the name of a configuration object");
  return { kind: kindOf(kind), name: textOf("name", name, MAX_NAME_LENGTH) };
}

function kindOf(kind: string): ObjectName["kind"] {
  const known = OBJECT_KINDS.find((each) => each === kind);
  if (known !== undefined) return known;
  throw invalidField("kind", `expected one of ${OBJECT_KINDS.join(", ")}`);
}

function formatOf(format: ObjectFormat): "yaml" | "json" {
  if (format === ObjectFormat.UNSPECIFIED || format === ObjectFormat.YAML) return "yaml";
  if (format === ObjectFormat.JSON) return "json";
  throw invalidField("format", `expected OBJECT_FORMAT_YAML or _JSON, got ${enumName(ObjectFormatSchema, format)}`);
}
