import { isAbsolute } from "node:path";
import { formatSize, parseSize } from "@strongroom/protocol/sizes";
import { MIB } from "../../domain/segments.ts";

/** A bucket, or a part of one, of a store that speaks S3. Credentials are not part of it. */
export interface S3Location {
  readonly kind: "s3";
  readonly bucket: string;
  /** Empty, or the beginning of every key; ends in a slash. */
  readonly prefix: string;
  /** With scheme; undefined for AWS itself. */
  readonly endpoint: string | undefined;
  /** Undefined: as the environment says. */
  readonly region: string | undefined;
  /** Whether the bucket goes into the path instead of the host's name. */
  readonly pathStyle: boolean;
  /** File in PEM with certificates that are trusted beside the usual ones. */
  readonly caFile: string | undefined;
  /** Least size in bytes of every part but the last. */
  readonly minPartSize: bigint;
  readonly maxParts: number;
}

/** Limits of S3 itself (Amazon S3 User Guide, "Multipart upload limits"). */
const S3_MIN_PART = 5n * MIB;
const S3_MAX_PART = 5n * 1024n * MIB;
const S3_MAX_PARTS = 10_000;

/** The options of an S3 URL; the old spellings are those of the Go CDK, which existing installations use. */
const S3_OPTIONS = [
  "endpoint",
  "region",
  "pathStyle",
  "caFile",
  "minPart",
  "maxParts",
  "disableSSL",
  "s3ForcePathStyle",
  "awssdk",
  "prefix",
] as const;

type S3Option = (typeof S3_OPTIONS)[number];

/**
 * Reads `s3://BUCKET/PREFIX?...`.
 * @throws RangeError that repeats nothing of the URL that could be secret.
 */
export function parseS3(text: string): S3Location {
  const [place = "", query = ""] = splitOnce(text.slice("s3:".length), "?");
  if (/[@#]/.test(place) || place.split("/")[2]?.includes(":")) throw credentialsInUrl();
  const match = /^\/\/([A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9])(?:\/(.*))?$/.exec(place);
  if (match === null)
    throw new RangeError("expected s3://BUCKET/PREFIX?..., the bucket with 3 to 63 letters, digits, dots and hyphens");
  const options = readOptions(query);
  const disableSsl = flag(options, "disableSSL") ?? false;
  return {
    kind: "s3",
    bucket: match[1]!,
    prefix: parsePrefix(prefixText(match[2] ?? "", options.get("prefix"))),
    endpoint: parseEndpoint(options.get("endpoint"), disableSsl),
    region: parseRegion(options.get("region")),
    pathStyle: flag(options, "pathStyle") ?? flag(options, "s3ForcePathStyle") ?? false,
    caFile: parseCaFile(options.get("caFile")),
    minPartSize: parseMinPart(options.get("minPart")),
    maxParts: parseMaxParts(options.get("maxParts")),
  };
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function credentialsInUrl(): RangeError {
  return new RangeError(
    "a storage URL has no place for credentials, since URLs end up in logs and process lists; set " +
      "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
      "or use a credentials file (~/.aws/credentials) or the role of the machine",
  );
}

function readOptions(query: string): Map<S3Option, string> {
  const options = new Map<S3Option, string>();
  for (const [name, value] of new URLSearchParams(query)) {
    const known = S3_OPTIONS.find((option) => option === name);
    if (known === undefined) throw unknownOption(name);
    if (options.has(known)) throw new RangeError(`the option ${known} is given twice`);
    if (value === "") throw new RangeError(`the option ${known} has no value`);
    options.set(known, value);
  }
  return options;
}

function unknownOption(name: string): RangeError {
  if (/key|secret|token|passw|credential/i.test(name)) return credentialsInUrl();
  // A name can be half of a value with an unescaped `&`, so only what looks like a name is repeated.
  const shown = /^[A-Za-z0-9_-]{1,40}$/.test(name) ? `"${name}"` : "with an unusual name";
  const near = S3_OPTIONS.find((option) => distance(option.toLowerCase(), name.toLowerCase()) <= 3);
  return new RangeError(
    `an S3 URL has no option ${shown}; ` +
      `${near === undefined ? `it has ${S3_OPTIONS.slice(0, 6).join(", ")}` : `did you mean ${near}?`}`,
  );
}

/** Levenshtein's distance of two short texts. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

function flag(options: ReadonlyMap<S3Option, string>, name: S3Option): boolean | undefined {
  const value = options.get(name);
  if (value === undefined) return undefined;
  if (/^(true|1)$/i.test(value)) return true;
  if (/^(false|0)$/i.test(value)) return false;
  throw new RangeError(`the option ${name} is true or false`);
}

/** Backup Repository names it in an option, to which it appends the keys as it is. */
function prefixText(path: string, option: string | undefined): string {
  if (option === undefined) return path;
  if (path !== "")
    throw new RangeError("the prefix stands in the path and in the option prefix; leave one of them out");
  if (!option.endsWith("/"))
    throw new RangeError('the option prefix ends in "/", since objects are kept below it and not beside it');
  return option;
}

function parsePrefix(text: string): string {
  const prefix = text.replace(/\/$/, "");
  if (prefix === "") return "";
  const usable = prefix.length <= 512 && prefix.split("/").every((part) => /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(part));
  if (!usable)
    throw new RangeError(
      'the prefix has names separated by "/", of letters, digits, ".", "_" and "-", not beginning with "."',
    );
  return `${prefix}/`;
}

function parseEndpoint(text: string | undefined, disableSsl: boolean): string | undefined {
  if (text === undefined) return undefined;
  const hasScheme = /^https?:\/\//i.test(text);
  if (!hasScheme && text.includes("://")) throw endpointForm();
  const url = URL.parse(hasScheme ? text : `${disableSsl ? "http" : "https"}://${text}`);
  if (url !== null && (url.username !== "" || url.password !== "")) throw credentialsInUrl();
  if (url === null || url.hostname === "" || url.search !== "" || url.hash !== "") throw endpointForm();
  if (disableSsl && url.protocol === "https:")
    throw new RangeError("disableSSL=true contradicts an endpoint that begins with https://");
  return url.href.replace(/\/$/, "");
}

function endpointForm(): RangeError {
  return new RangeError("the option endpoint is a URL like https://s3.example.org:9000, or HOST:PORT");
}

function parseRegion(text: string | undefined): string | undefined {
  if (text !== undefined && !/^[A-Za-z0-9-]{1,50}$/.test(text))
    throw new RangeError("the option region is a name like eu-central-1");
  return text;
}

function parseCaFile(text: string | undefined): string | undefined {
  if (text !== undefined && !isAbsolute(text)) throw new RangeError("the option caFile is an absolute path");
  return text;
}

function parseMinPart(text: string | undefined): bigint {
  if (text === undefined) return S3_MIN_PART;
  const size = parseSize(text);
  if (size < 1n || size > S3_MAX_PART)
    throw new RangeError(`the option minPart is a size up to ${formatSize(S3_MAX_PART)}, for example 5M`);
  return size;
}

function parseMaxParts(text: string | undefined): number {
  if (text === undefined) return S3_MAX_PARTS;
  const parts = Number(text);
  if (!/^\d{1,5}$/.test(text) || parts < 1 || parts > S3_MAX_PARTS)
    throw new RangeError(`the option maxParts is a number from 1 to ${S3_MAX_PARTS}`);
  return parts;
}
