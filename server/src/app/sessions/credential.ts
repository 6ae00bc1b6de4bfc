import { addressMatches } from "../../domain/addresses.ts";
import type { User } from "../../domain/configuration.ts";

/** Whom a login name means: a user, or one of its access keys. */
export interface CredentialName {
  readonly userName: string;
  /** Empty for the user itself. */
  readonly accessKey: string;
}

/** Takes `user` or `user$key` apart. */
export function credentialName(login: string): CredentialName {
  const separator = login.lastIndexOf("$");
  if (separator < 0) return { userName: login, accessKey: "" };
  return { userName: login.slice(0, separator), accessKey: login.slice(separator + 1) };
}

/** `user`, or `user$key`. */
export function loginName({ userName, accessKey }: CredentialName): string {
  return accessKey === "" ? userName : `${userName}$${accessKey}`;
}

/** The password hash of a user or of its access key; undefined when there is none, or no such key. */
export function credentialHash(user: User | undefined, accessKey: string): string | undefined {
  return accessKey === "" ? user?.passwordHash : user?.accessKeys.find((k) => k.name === accessKey)?.passwordHash;
}

/**
 * What a session keeps of the password it was opened with: a digest of the password's hash, whose salt is as good as
 * never drawn twice. Another password, and a user that was removed and added again, has another one.
 */
export function credentialFingerprint(
  sha256: (text: string) => string,
  name: CredentialName,
  passwordHash: string | undefined,
): string | undefined {
  return passwordHash === undefined ? undefined : sha256(`${loginName(name)}\n${passwordHash}`);
}

/** Whether user and access key are in force, and may come from this address. */
export function mayEnter(user: User, accessKey: string, address: string): boolean {
  if (user.deactivated || !allows(user.restrictByIp, address)) return false;
  if (accessKey === "") return true;
  const key = user.accessKeys.find((k) => k.name === accessKey);
  return key !== undefined && allows(key.restrictByIp ?? [], address);
}

function allows(ranges: readonly string[], address: string): boolean {
  return ranges.length === 0 || addressMatches(address, ranges);
}
