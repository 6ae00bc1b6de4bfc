import { hasSystemRole, maySee, type Principal } from "../../domain/access.ts";
import { clockState } from "../../domain/clock.ts";
import type { CollectionSpec, Configuration } from "../../domain/configuration.ts";
import { type HealthCheck, type HealthStatus, worst } from "../../domain/health.ts";
import { cutPage } from "../../domain/page.ts";
import { pinned } from "../ports/config-source.ts";
import type { Transaction } from "../ports/database.ts";
import type { CollectionFacts } from "../ports/live-versions.ts";
import { type CollectionDeps, type CollectionView, frozenView, healthChecks, viewOf } from "./collections.ts";

/** A collection as an overview shows it. */
export interface CollectionOverview extends CollectionView {
  readonly facts: CollectionFacts;
  readonly status: HealthStatus;
  /** The checks that are not ok. */
  readonly problems: readonly HealthCheck[];
}

/** Which collections; those that fit everything given. */
export interface CollectionFilter {
  /** Their names begin with it; empty for any. */
  readonly namePrefix: string;
  /** Their tenant; empty for any. */
  readonly organization: string;
  /** Their health is one of these; empty for any. */
  readonly health: readonly HealthStatus[];
}

/** No filter. */
export const EVERY_COLLECTION: CollectionFilter = { namePrefix: "", organization: "", health: [] };

/** A page of an overview. */
export interface OverviewPage {
  readonly collections: readonly CollectionOverview[];
  /** Name that the next page comes after; undefined on the last one. */
  readonly nextAfter: string | undefined;
  /** How many collections fit the filter; undefined but on the first page. */
  readonly total: number | undefined;
}

/** A candidate: configured, or frozen. */
interface Candidate {
  readonly name: string;
  readonly spec: CollectionSpec | undefined;
}

/** Collections whose facts are in memory at once. */
export const LOOKED_AT_ONCE = 500;

/** Bytes that health and the newest version take in an answer, generously. */
const OVERVIEW_BYTES = 1500;

/** Names of a configuration in order; a configuration in force is one value, replaced as a whole. */
const SORTED = new WeakMap<Configuration["collections"], readonly string[]>();

function sortedNames(collections: Configuration["collections"]): readonly string[] {
  const known = SORTED.get(collections);
  if (known !== undefined && known.length === collections.size) return known;
  const names = [...collections.keys()].sort();
  SORTED.set(collections, names);
  return names;
}

/**
 * Lists the collections that the caller may see, by name, after `afterName`, each with usage, newest version and
 * health. systemAdmin sees frozen ones too. Takes the same few queries however many there are, and looks at a page of
 * them only. Asked for a health it has to look for it, {@link LOOKED_AT_ONCE} at a time: through all of them for the
 * first page, which counts them, and until the page is full for the others.
 */
export async function listCollections(
  deps: CollectionDeps,
  principal: Principal,
  input: CollectionFilter & { readonly afterName: string | undefined; readonly pageSize: number },
): Promise<OverviewPage> {
  const at = pinned(deps);
  const { collections } = at.config.current();
  const { organization, namePrefix, health, afterName = "", pageSize } = input;
  const fits = (spec: CollectionSpec) =>
    (organization === "" || spec.organization === organization) && maySee(principal, spec);
  const names = sortedNames(collections);
  // A name may be what frozen ones are listed by, so that it need not be among these.
  const from = firstIndex(names, (name) => name >= namePrefix && name > afterName);
  const candidates: Candidate[] = [];
  const isFirst = afterName === "";
  for (let i = from; i < names.length && names[i]!.startsWith(namePrefix); i++) {
    const spec = collections.get(names[i]!)!;
    if (fits(spec)) candidates.push({ name: spec.name, spec });
    // One more than a page, to know whether there is one after it; all of them where they are counted.
    if (!isFirst && health.length === 0 && candidates.length > pageSize) break;
  }
  return await deps.database.transaction(async (tx) => {
    const seesFrozen = organization === "" && hasSystemRole(principal, "systemAdmin");
    const frozen = seesFrozen ? await tx.collections.storedExcept([...collections.keys()], namePrefix) : [];
    const all = [...candidates, ...frozen.map((name) => ({ name, spec: undefined }))]
      .filter(({ name }) => name > afterName)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    const clock = clockState(await tx.clock.read(), tx.now);
    const viewed = async (wanted: readonly Candidate[]) => {
      const facts = await factsOf(tx, wanted);
      const views: CollectionOverview[] = [];
      for (const { name, spec } of wanted) {
        const of = facts.get(name)!;
        const checks = await healthChecks(tx, at.config, { name, spec }, of, clock);
        const problems = checks.filter(({ status }) => status !== "ok");
        const view = spec === undefined ? frozenView({ name, id: of.id }) : viewOf(spec, of.id, tx.now);
        views.push({ ...view, facts: of, status: worst(checks.map(({ status }) => status)), problems });
      }
      return views;
    };
    if (health.length === 0) {
      const { page, more } = cutPage(all, pageSize, bytesOf);
      const nextAfter = more ? page.at(-1)!.name : undefined;
      return { collections: await viewed(page), nextAfter, total: isFirst ? all.length : undefined };
    }
    const matching: CollectionOverview[] = [];
    let total = 0;
    for (let at = 0; at < all.length && (isFirst || matching.length <= pageSize); at += LOOKED_AT_ONCE)
      for (const view of await viewed(all.slice(at, at + LOOKED_AT_ONCE))) {
        if (!health.includes(view.status)) continue;
        total++;
        // One more than a page, to know whether there is one after it.
        if (matching.length <= pageSize) matching.push(view);
      }
    const { page, more } = cutPage(matching, pageSize, bytesOf);
    const nextAfter = more ? page.at(-1)!.name : undefined;
    return { collections: page, nextAfter, total: isFirst ? total : undefined };
  });
}

/** Windows and the description are texts of the configuration. */
function bytesOf({ spec }: Candidate): number {
  return OVERVIEW_BYTES + (spec === undefined ? 0 : spec.description.length * 3 + spec.windows.length * 100);
}

/** A collection that was never used has no row yet; whoever is told of it is told the id it keeps. */
async function factsOf(tx: Transaction, wanted: readonly Candidate[]): Promise<Map<string, CollectionFacts>> {
  const asked = wanted.map(({ name, spec }) => ({ ...spec, name }));
  const facts = await tx.live.facts(asked, tx.now);
  const missing = asked.filter(({ name }) => !facts.has(name));
  if (missing.length === 0) return facts;
  await tx.collections.ensure(missing.map(({ name }) => name));
  return new Map([...facts, ...(await tx.live.facts(missing, tx.now))]);
}

/** Index of the first that fits, in a list where all after it fit too; its length for none. */
function firstIndex(names: readonly string[], fits: (name: string) => boolean): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (fits(names[middle]!)) high = middle;
    else low = middle + 1;
  }
  return low;
}
