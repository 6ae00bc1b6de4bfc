import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { Database, OrganizationRow, Transaction } from "../ports/database.ts";
import { type ClosingDeps, settleClosing } from "./closing-object.ts";

/** What use cases of organizations need. */
export interface OrganizationDeps {
  readonly config: ConfigSource;
  readonly database: Database;
}

/** What use cases need that end or begin an organization: it is written into the storage too. */
export type EndOrganizationDeps = OrganizationDeps & ClosingDeps;

/** An organization as it is configured, and what is known of it. */
export interface OrganizationView extends OrganizationRow {
  readonly configured: boolean;
  /** Bytes; undefined for no limit. */
  readonly maxTotalSize: bigint | undefined;
}

/**
 * Lists organizations by name, those that are only configured among them.
 * @returns the name after which the next page begins; undefined on the last.
 */
export async function listOrganizations(
  deps: OrganizationDeps,
  principal: Principal,
  page: { readonly afterName: string | undefined; readonly pageSize: number },
): Promise<{ organizations: OrganizationView[]; nextAfter: string | undefined }> {
  requireAdmin(principal, "list-organizations");
  const rows = await deps.database.read(
    async (tx) => await tx.organizations.list({ after: page.afterName, limit: page.pageSize + 1 }),
  );
  const known = new Map(rows.map((row) => [row.name, row]));
  const configured = [...deps.config.current().organizations.keys()].filter(
    (name) => page.afterName === undefined || name > page.afterName,
  );
  const names = [...new Set([...known.keys(), ...configured])].sort().slice(0, page.pageSize + 1);
  const organizations = names.slice(0, page.pageSize).map((name) => viewOf(deps, name, known.get(name)));
  return { organizations, nextAfter: names.length > page.pageSize ? organizations.at(-1)!.name : undefined };
}

/** Makes an organization read-only. @throws DomainError ACCESS_DENIED, ORGANIZATION_NOT_FOUND */
export async function closeOrganization(
  deps: EndOrganizationDeps,
  principal: Principal,
  name: string,
  reason: string,
): Promise<OrganizationView> {
  requireAdmin(principal, "close-organization");
  const view = await deps.database.transaction(async (tx) => {
    // Closed again, it stays closed since then: what was purged since stays purged.
    const closedAt = (await requireOrganization(tx, deps, name))?.closedAt ?? tx.now;
    await tx.organizations.close(name, { closedAt, closedBy: principal.user.name, closedReason: reason });
    await tx.audit({
      kind: "organization.closed",
      actor: principal,
      collectionName: "",
      object: name,
      reason,
      details: { organization: name, reason },
    });
    return viewOf(deps, name, await tx.organizations.find(name));
  });
  await settleClosing(deps, name);
  return view;
}

/** Lets an organization take uploads again. @throws DomainError ACCESS_DENIED, ORGANIZATION_NOT_FOUND */
export async function openOrganization(
  deps: EndOrganizationDeps,
  principal: Principal,
  name: string,
): Promise<OrganizationView> {
  requireAdmin(principal, "open-organization");
  const view = await deps.database.transaction(async (tx) => {
    const row = await requireOrganization(tx, deps, name);
    if (row?.closedAt != null) {
      await tx.organizations.close(name, { closedAt: null, closedBy: "", closedReason: "" });
      await tx.audit({
        kind: "organization.opened",
        actor: principal,
        collectionName: "",
        object: name,
        details: { organization: name },
      });
    }
    return viewOf(deps, name, await tx.organizations.find(name));
  });
  await settleClosing(deps, name);
  return view;
}

/** @throws DomainError ACCESS_DENIED for whoever is not systemAdmin */
export function requireAdmin(principal: Principal, action: string): void {
  if (hasSystemRole(principal, "systemAdmin")) return;
  throw new DomainError("ACCESS_DENIED", "only systemAdmin may see and change organizations", { metadata: { action } });
}

/**
 * The row of an organization that is configured or has one; undefined for one without.
 * @throws DomainError ORGANIZATION_NOT_FOUND
 */
export async function requireOrganization(
  tx: Transaction,
  { config }: Pick<OrganizationDeps, "config">,
  name: string,
): Promise<OrganizationRow | undefined> {
  const row = await tx.organizations.find(name);
  if (row !== undefined || config.current().organizations.has(name)) return row;
  throw new DomainError(
    "ORGANIZATION_NOT_FOUND",
    `there is no organization "${name}"; list them to see what there is`,
    {
      metadata: { organization: name },
    },
  );
}

const NOTHING = {
  storedBytes: 0n,
  reservedBytes: 0n,
  trashBytes: 0n,
  closedAt: null,
  closedBy: "",
  closedReason: "",
  purge: null,
} as const;

function viewOf(
  { config }: Pick<OrganizationDeps, "config">,
  name: string,
  row: OrganizationRow | undefined,
): OrganizationView {
  const spec = config.current().organizations.get(name);
  return { name, ...NOTHING, ...row, configured: spec !== undefined, maxTotalSize: spec?.maxTotalSize };
}
