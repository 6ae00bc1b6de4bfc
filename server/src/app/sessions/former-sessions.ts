import type { AuditEvent } from "../../domain/audit.ts";
import type { Configuration } from "../../domain/configuration.ts";
import type { SessionCredential, Transaction } from "../ports/database.ts";
import { type CredentialName, credentialFingerprint, loginName } from "./credential.ts";

/** The fingerprint of each credential of a configuration, by its login name; undefined for one without a password. */
export type Fingerprints = ReadonlyMap<string, string | undefined>;

/**
 * The fingerprints of what a configuration lets in.
 * @param sha256 SHA-256 in hexadecimal.
 */
export function fingerprintsOf(sha256: (text: string) => string, { users }: Configuration): Fingerprints {
  const fingerprints = new Map<string, string | undefined>();
  const add = (name: CredentialName, hash: string | undefined) =>
    fingerprints.set(loginName(name), credentialFingerprint(sha256, name, hash));
  for (const user of users.values()) {
    add({ userName: user.name, accessKey: "" }, user.passwordHash);
    for (const key of user.accessKeys) add({ userName: user.name, accessKey: key.name }, key.passwordHash);
  }
  return fingerprints;
}

/** Login names whose credential is another one, or in one of the two only. */
export function changedNames(before: Fingerprints, after: Fingerprints): string[] {
  return [...new Set([...before.keys(), ...after.keys()])].filter((name) => before.get(name) !== after.get(name));
}

/** Whether sessions that were opened with a credential have another one than that in force, or theirs is gone. */
export function isFormer(inForce: Fingerprints, credential: SessionCredential): boolean {
  const fingerprint = inForce.get(loginName(credential));
  // One from before there were fingerprints fits any password, as long as there is one.
  return fingerprint === undefined || (credential.fingerprint !== null && credential.fingerprint !== fingerprint);
}

/**
 * Ends the valid sessions that were opened with a credential, and says so in the audit log.
 * @param by who made the credential a former one, and before when sessions were issued that it is about.
 * @returns how many.
 */
export async function endFormer(
  tx: Pick<Transaction, "sessions" | "audit" | "now">,
  { userName, accessKey, fingerprint }: SessionCredential,
  { actor, createdBefore }: { readonly actor: AuditEvent["actor"]; readonly createdBefore?: Date },
): Promise<number> {
  const count = await tx.sessions.revoke({ userName, accessKey, fingerprint, createdBefore }, tx.now);
  if (count > 0)
    await tx.audit({
      kind: "sessions.revoked",
      actor,
      collectionName: "",
      details: { user: userName, access_key: accessKey, sessions: `${count}` },
    });
  return count;
}
