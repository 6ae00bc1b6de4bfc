/*
 * Every key of a store, made and recognized here and nowhere else:
 *
 *   collections/NAME/ID                 the object of a version; ID is its upload's
 *   collections/NAME/ID.manifest.json   the manifest beside it
 *   audit/heads/NUMBER                  a signed head of the audit log
 *   organizations/NAME/closing.json     that an organization was closed or purged, by whom and why
 *   strongroom-installation.json        whose store it is
 *   strongroom-copying.json             instead of that, while a store is copied to
 *   strongroom-probe-MS-ID              an object of a moment, made and removed by readiness
 *   strongroom-probe/ID                 an unfinished object of a moment, made and removed when a store is opened
 *
 * And those of Backup Repository, which `strongroom import` takes over as they are:
 *
 *   NAME/FILENAME                       the object of a version; FILENAME is the template's of its collection
 *   .health-NANOSECONDS                 an object of a moment
 */

/** Key of the object that says which installation a store belongs to. */
export const INSTALLATION_KEY = "strongroom-installation.json";

/** Key of the object that marks a store as being copied to, from the first object to the last. */
export const COPYING_KEY = "strongroom-copying.json";

/** Beginning of the keys of objects of versions and of their manifests. */
export const VERSIONS_PREFIX = "collections/";

/** Beginning of the keys of the objects with which readiness tries a store. They hold nothing worth keeping. */
export const READINESS_PROBES = "strongroom-probe-";

/**
 * Beginning of the keys of the unfinished objects with which a store is tried when it is opened. They are never
 * finished.
 */
export const OPENING_PROBES = "strongroom-probe/";

/** Beginning of the keys of signed heads of the audit log. */
export const AUDIT_HEADS = "audit/heads/";

/** Beginning of the keys of the objects which say that organizations were closed. */
export const CLOSINGS_PREFIX = "organizations/";

const MANIFEST_SUFFIX = ".manifest.json";
const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const VERSION_KEY = new RegExp(`^${VERSIONS_PREFIX}([^/]+)/${UUID}(${MANIFEST_SUFFIX.replaceAll(".", "\\.")})?$`);
const CLOSING = new RegExp(`^${CLOSINGS_PREFIX}[^/]+/closing\\.json$`);
const AUDIT_HEAD = new RegExp(`^${AUDIT_HEADS}\\d{16}$`);
const READINESS_PROBE = new RegExp(`^${READINESS_PROBES}(\\d{13})-`);

/** What a key is of. */
export type KeyMeaning =
  /** `objectKey` is the key itself, or that of the object which the manifest describes. */
  | { readonly kind: "object" | "manifest"; readonly collection: string; readonly objectKey: string }
  | { readonly kind: "marker" | "probe" | "audit" | "organization" | "foreign" };

/** Key of the object that an upload becomes. It contains the upload's id, so it is never used again. */
export function objectKey(collection: string, uploadId: string): string {
  return `${VERSIONS_PREFIX}${collection}/${uploadId}`;
}

/** Key of the manifest beside a version's object. */
export function manifestKey(objectKey: string): string {
  return `${objectKey}${MANIFEST_SUFFIX}`;
}

/**
 * Key of the object with which readiness tries a store.
 * @param at when, in milliseconds since 1970.
 * @param id unique.
 */
export function readinessProbeKey(at: number, id: string): string {
  return `${READINESS_PROBES}${at}-${id}`;
}

/** When a readiness probe was made, in milliseconds since 1970; NaN for other keys. */
export function readinessProbeTime(key: string): number {
  return Number(READINESS_PROBE.exec(key)?.[1] ?? Number.NaN);
}

/** Key of the unfinished object with which a store is tried when it is opened. @param id unique. */
export function openingProbeKey(id: string): string {
  return `${OPENING_PROBES}${id}`;
}

/** Key of a signed head. @param sequence its number. */
export function auditHeadKey(sequence: bigint): string {
  return `${AUDIT_HEADS}${String(sequence).padStart(16, "0")}`;
}

/** Key of the object which says that an organization was closed. */
export function closingKey(organization: string): string {
  return `${CLOSINGS_PREFIX}${organization}/closing.json`;
}

/** What a key is of; `foreign` for everything that Strongroom does not make. */
export function meaningOf(key: string): KeyMeaning {
  const [, collection, suffix] = VERSION_KEY.exec(key) ?? [];
  if (collection !== undefined) {
    return suffix === undefined
      ? { kind: "object", collection, objectKey: key }
      : { kind: "manifest", collection, objectKey: key.slice(0, -suffix.length) };
  }
  if (AUDIT_HEAD.test(key)) return { kind: "audit" };
  if (CLOSING.test(key)) return { kind: "organization" };
  if (key === INSTALLATION_KEY || key === COPYING_KEY) return { kind: "marker" };
  return { kind: key.startsWith(READINESS_PROBES) || key.startsWith(OPENING_PROBES) ? "probe" : "foreign" };
}

/** Beginning of the keys of the objects that Backup Repository stored for a collection. */
export function foreignPrefix(collection: string): string {
  return `${collection}/`;
}

/** An object of Backup Repository: whose it is, and its name there. */
export interface ForeignName {
  readonly collection: string;
  readonly filename: string;
}

/** What a key of Backup Repository says; undefined for any that cannot be of a version of it. */
export function foreignName(key: string): ForeignName | undefined {
  const slash = key.indexOf("/");
  if (slash <= 0 || slash === key.length - 1 || meaningOf(key).kind !== "foreign") return undefined;
  return { collection: key.slice(0, slash), filename: key.slice(slash + 1) };
}

/**
 * The number in a name that Backup Repository made: it replaced the first `${version}` of the template only. Undefined
 * for a name that the template does not make; 1 for a template without a number, whose versions share one name.
 */
export function foreignNumber(template: string, filename: string): bigint | undefined {
  const [before = "", ...rest] = template.split("${version}");
  if (rest.length === 0) return filename === template ? 1n : undefined;
  const after = rest.join("${version}");
  if (!filename.startsWith(before) || !filename.endsWith(after)) return undefined;
  const digits = filename.slice(before.length, filename.length - after.length);
  return before.length + after.length < filename.length && /^[1-9]\d{0,17}$/.test(digits) ? BigInt(digits) : undefined;
}
