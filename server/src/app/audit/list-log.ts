import { hasSystemRole, type Principal } from "../../domain/access.ts";
import type { AuditEntry } from "../../domain/audit-chain.ts";
import { DomainError } from "../../domain/errors.ts";
import { bytesOfMap, cutPage } from "../../domain/page.ts";
import type { AuditFilter } from "../ports/audit-log.ts";
import type { Database } from "../ports/database.ts";

/**
 * Lists events of the audit log, the newest first, for systemAdmin.
 * @param input.before events inserted before this one, from the page before.
 * @throws DomainError ACCESS_DENIED
 */
export async function listAuditEvents(
  { database }: { readonly database: Database },
  principal: Principal,
  input: { readonly of: AuditFilter; readonly before: bigint | undefined; readonly pageSize: number },
): Promise<{ events: AuditEntry[]; nextBefore: bigint | undefined }> {
  if (!hasSystemRole(principal, "systemAdmin"))
    throw new DomainError("ACCESS_DENIED", "only systemAdmin may read the audit log", {
      metadata: { action: "list-audit-events" },
    });
  const rows = await database.read(async (tx) => await tx.auditLog.list(input.of, input.before, input.pageSize + 1));
  const { page, more } = cutPage(rows, input.pageSize, (row) => bytesOfMap(row.details) + 3 * row.reason.length + 500);
  return { events: page, nextBefore: more ? page.at(-1)!.ordinal : undefined };
}
