import type { Principal } from "../../domain/access.ts";
import type { UsageDay, UsageFilter } from "../ports/database.ts";
import { type OrganizationDeps, requireAdmin } from "./organizations.ts";

/** Lists what was uploaded, newest day first. @throws DomainError ACCESS_DENIED */
export async function listUsage(
  deps: Pick<OrganizationDeps, "database">,
  principal: Principal,
  filter: UsageFilter,
  page: { readonly after: UsageDay["key"] | undefined; readonly pageSize: number },
): Promise<{ days: UsageDay[]; next: UsageDay["key"] | undefined }> {
  requireAdmin(principal, "list-usage");
  const rows = await deps.database.read(
    async (tx) => await tx.usage.list(filter, { after: page.after, limit: page.pageSize + 1 }),
  );
  const days = rows.slice(0, page.pageSize);
  return { days, next: rows.length > page.pageSize ? days.at(-1)!.key : undefined };
}
