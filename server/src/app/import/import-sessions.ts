import type { Database, SessionRow } from "../ports/database.ts";
import type { OldDatabase, OldSession } from "../ports/old-installation.ts";
import { MAX_SESSIONS } from "../sessions/sessions.ts";

/** What became of the sessions of Backup Repository. */
export interface SessionCounts {
  /** Taken over now, or in a dry run to be taken over. */
  readonly imported: number;
  /** Were there before. */
  readonly present: number;
  /** Were ended here, since they have been deactivated there meanwhile. */
  readonly ended: number;
}

/** What the hash of a token looks like. */
const HASH = /^[0-9a-f]{64}$/;

/**
 * Takes over sessions that have not expired, so that their tokens go on where the server is given the secret that they
 * are signed with. They expire when they would have; deactivated ones stay so. Of a user and access key the newest 1000.
 * @param database undefined for a dry run.
 */
export async function importSessions(database: Database | undefined, old: OldDatabase): Promise<SessionCounts> {
  const counts = { imported: 0, present: 0, ended: 0 };
  for await (const session of old.sessions(MAX_SESSIONS)) {
    if (!HASH.test(session.id) || session.userName === "") continue;
    counts[database === undefined ? "imported" : await takeOver(database, session)]++;
  }
  return counts;
}

async function takeOver(database: Database, session: OldSession): Promise<keyof SessionCounts> {
  return await database.transaction(async (tx) => {
    const there = await tx.sessions.lock(session.id);
    if (there === undefined) {
      await tx.sessions.insert(rowOf(session, tx.now));
      return "imported";
    }
    if (!session.deactivated || there.revokedAt !== null) return "present";
    await tx.sessions.revoke({ userName: there.userName, chainId: there.chainId }, tx.now);
    return "ended";
  });
}

function rowOf({ deactivated, ...session }: OldSession, now: Date): SessionRow {
  const createdAt = session.createdAt > now ? now : session.createdAt;
  const chain = { chainId: session.id, chainBeganAt: createdAt, chainEndsAt: session.expiresAt };
  // Only the token itself says what it is narrowed to.
  const unknown = { scope: [], fingerprint: null };
  return { ...session, ...chain, ...unknown, createdAt, revokedAt: deactivated ? now : null };
}
