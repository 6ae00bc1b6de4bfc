import type { Principal } from "../../domain/access.ts";
import type { Configuration, Role, User } from "../../domain/configuration.ts";
import { DomainError, invalidField } from "../../domain/errors.ts";
import {
  freeEntry,
  hashPlace,
  secretFor,
  withAccessKey,
  withEntry,
  withInlineHash,
  withReference,
} from "../../objects/edit-user.ts";
import type { WantedChange, WrittenObject } from "../ports/config-objects.ts";
import type { PasswordHasher } from "../ports/passwords.ts";
import { credentialName } from "../sessions/credential.ts";
import { type ChangeObjectsDeps, type ChangeResult, change } from "./change-objects.ts";
import type { ExpectedObject } from "./record-change.ts";
import { objectNotFound, objectsOf, requireObject } from "./see-objects.ts";

/** The ports for passwords of users and access keys. */
export interface PasswordDeps extends ChangeObjectsDeps {
  readonly passwords: PasswordHasher;
  /** Makes a password that nobody guesses. */
  readonly newPassword: () => string;
}

/** A password that was set. It stands nowhere else. */
export interface PasswordResult {
  /** What it logs in as: `user`, or `user$key`. */
  readonly username: string;
  /** The password that was made; undefined where it was given. */
  readonly password: string | undefined;
  readonly plan: ChangeResult["plan"];
}

/** An access key to be made. */
export interface CreateAccessKeyInput {
  readonly userName: string;
  readonly accessKey: string;
  readonly collections: readonly string[];
  readonly roles: readonly Role[];
  readonly restrictByIp: readonly string[];
}

/** Gives a user another way in, with fewer rights: its secret is made here and shown once, its hash is written. */
export async function createAccessKey(
  deps: PasswordDeps,
  principal: Principal,
  { userName, accessKey, ...rights }: CreateAccessKeyInput,
): Promise<PasswordResult> {
  const username = `${userName}$${accessKey}`;
  const { user, object } = await requireUser(deps, principal, userName);
  if (user.accessKeys.some(({ name }) => name === accessKey))
    throw new DomainError("OBJECT_EXISTS", `the access key "${username}" exists; SetPassword gives it another`, {
      metadata: { kind: "access key", name: username },
    });
  const { collections } = deps.config.current();
  const unknown = rights.collections.find((name) => !collections.has(name));
  if (unknown !== undefined) throw invalidField("collections", `expected names of collections, got "${unknown}"`);
  const password = deps.newPassword();
  const hash = await deps.passwords.hash(password);
  const name = secretFor(object);
  const secret = await objectsOf(deps.config).read({ kind: "Secret", name });
  const entry = { name, entry: freeEntry(secret, userName, accessKey) };
  const text = withAccessKey(object, { name: accessKey, ...rights }, entry);
  const written = withEntry(secret, entry, hash, object.entry.namespace);
  const plan = await save(
    deps,
    principal,
    "access-key.created",
    username,
    [text, written],
    [expectedUser(object), { kind: "Secret", name, revision: secret?.entry.revision }],
  );
  return { username, password, plan };
}

/**
 * Sets the password of a user, or of an access key (`user$key`). Sessions from before are refused from then on.
 * @param input.password empty to have one made.
 */
export async function setPassword(
  deps: PasswordDeps,
  principal: Principal,
  input: { readonly username: string; readonly password: string },
): Promise<PasswordResult> {
  const { username } = input;
  const named = credentialName(username);
  const { userName } = named;
  const accessKey = username === userName ? undefined : named.accessKey;
  const { user, object } = await requireUser(deps, principal, userName);
  if (accessKey !== undefined && !user.accessKeys.some(({ name }) => name === accessKey))
    throw objectNotFound({ kind: "BackupUser", name: username });
  const made = input.password === "" ? deps.newPassword() : undefined;
  const hash = await deps.passwords.hash(made ?? input.password);
  const place = hashPlace(object, accessKey);
  if (place !== undefined && place.secret === undefined) {
    const text = withInlineHash(object, accessKey, hash);
    const plan = await save(deps, principal, "password.set", username, [text], [expectedUser(object)]);
    return { username, password: made, plan };
  }
  const own = place?.secret;
  // An entry that others use too would give them this password.
  const isShared = own === undefined || hasSharedHash(deps.config.current(), user, accessKey);
  const name = own?.name ?? secretFor(object);
  const secret = await objectsOf(deps.config).read({ kind: "Secret", name });
  const entry = isShared ? { name, entry: freeEntry(secret, userName, accessKey) } : own;
  const text = isShared ? withReference(object, accessKey, entry) : object.text;
  const written = withEntry(secret, entry, hash, object.entry.namespace);
  const plan = await save(
    deps,
    principal,
    "password.set",
    username,
    [text, written],
    [expectedUser(object), { kind: "Secret", name, revision: secret?.entry.revision }],
  );
  return { username, password: made, plan };
}

/** A user of the state in force and as it is written. */
async function requireUser(
  { config }: PasswordDeps,
  principal: Principal,
  name: string,
): Promise<{ user: User; object: WrittenObject }> {
  requireObject(config, principal, { kind: "BackupUser", name });
  const object = await objectsOf(config).read({ kind: "BackupUser", name });
  const user = config.current().users.get(name);
  if (object === undefined || user === undefined) throw objectNotFound({ kind: "BackupUser", name });
  return { user, object };
}

/** A user that is to be as it was read. */
function expectedUser({ entry: { kind, name, revision } }: WrittenObject): ExpectedObject {
  return { kind, name, revision };
}

/** Whether somebody else has the hash too: hashes are salted, so that it is the same entry, or a copy of it. */
function hasSharedHash({ users }: Configuration, user: User, accessKey: string | undefined): boolean {
  const holder = accessKey === undefined ? user : user.accessKeys.find(({ name }) => name === accessKey);
  const hash = holder?.passwordHash;
  const all = [...users.values()].flatMap((each) => [each, ...each.accessKeys]);
  return hash === undefined || all.filter(({ passwordHash }) => passwordHash === hash).length > 1;
}

async function save(
  deps: PasswordDeps,
  principal: Principal,
  kind: "access-key.created" | "password.set",
  username: string,
  documents: readonly string[],
  expected: readonly ExpectedObject[],
): Promise<ChangeResult["plan"]> {
  const wanted: WantedChange = { documents: documents.join("---\n") };
  const options = { dryRun: false, expectedRevision: "", allowNoAdmin: false, confirmRemovals: 0n };
  const { plan } = await change(deps, principal, wanted, { ...options, password: { kind, username, expected } });
  return plan;
}
