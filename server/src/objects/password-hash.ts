import { ValueError } from "@strongroom/protocol/sizes";

/**
 * Bounds of argon2id parameters: a hash in the configuration must not let a login take the server's memory or minutes
 * of its time.
 */
const MAX_MEMORY_KIB = 1024 * 1024;
const MAX_PASSES = 10;
const MAX_LANES = 16;

/**
 * Other password schemes by the names they write, so that a message can say what it is without showing any of the
 * value.
 */
const OTHER_SCHEMES = new Set(["argon2i", "argon2d", "2a", "2b", "2y", "1", "5", "6", "y", "scrypt", "pbkdf2-sha256"]);

const HOW = "make one with `strongroom hash-password`";
const EXPECTED = "expected an argon2id hash ($argon2id$v=19$m=...,t=...,p=...$salt$hash, or that text in base64)";

/** Bytes of standard base64, with or without padding; undefined when it is none. */
function decodeBase64(text: string): Buffer | undefined {
  const body = text.replace(/={1,2}$/, "");
  return /^[A-Za-z0-9+/]+$/.test(body) && body.length % 4 !== 1 ? Buffer.from(body, "base64") : undefined;
}

/**
 * Takes base64 off a text until it has the wanted form, at most `layers` times. Line ends of encoded files and editors
 * do no harm.
 * @returns undefined when the form never appears.
 */
export function unwrapBase64(text: string, layers: number, wanted: (text: string) => boolean): string | undefined {
  let inner = text.trim();
  for (let layer = 0; ; layer++) {
    if (wanted(inner)) return inner;
    const bytes = layer < layers ? decodeBase64(inner.replace(/\s+/g, "")) : undefined;
    if (!bytes) return undefined;
    inner = bytes.toString("utf8").trim();
  }
}

function bounded(name: string, text: string | undefined, least: number, most: number, unit = ""): number {
  // Digits only, so that nothing but a number is ever shown.
  const value = text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : undefined;
  if (value !== undefined && value >= least && value <= most) return value;
  const found = value === undefined ? "none" : `${value}`;
  throw new ValueError(`expected an argon2id hash with ${name} from ${least} to ${most}${unit}, got ${found}; ${HOW}`);
}

function field(name: string, text: string, least: number, most: number): string {
  const bytes = decodeBase64(text);
  if (!bytes || bytes.length < least || bytes.length > most) {
    throw new ValueError(
      `expected an argon2id hash whose ${name} is base64 of ${least} to ${most} bytes, got another; ${HOW}`,
    );
  }
  return bytes.toString("base64").replace(/=+$/, "");
}

/**
 * Reads a password hash: the standard encoded (PHC) argon2id string, as it is or in base64. Existing installations
 * padded the base64 inside the string with `=`, which the PHC format and `argon2.verify` do not allow; the result is
 * without.
 *
 * Messages never contain the value, only its scheme and the numbers of its parameters.
 * @param layers how often it may be encoded in base64.
 * @returns the canonical PHC string.
 * @throws {ValueError}
 * @see https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md
 */
export function parsePasswordHash(text: string, layers = 1): string {
  const phc = unwrapBase64(text, layers, (inner) => inner.startsWith("$"));
  if (phc === undefined) throw new ValueError(`${EXPECTED}, got something else (not shown); ${HOW}`);
  const [, scheme = "", version, parameters = "", salt = "", hash = "", ...rest] = phc.split("$");
  if (scheme !== "argon2id") {
    const found = OTHER_SCHEMES.has(scheme) ? `a hash of the scheme "${scheme}"` : "another scheme (not shown)";
    throw new ValueError(`${EXPECTED}, got ${found}; ${HOW}`);
  }
  // By name: the argon2 package writes m, p, t where the reference implementation writes m, t, p.
  const numbers = new Map<string, string | undefined>();
  for (const parameter of parameters.split(",")) {
    const [name = "", value] = parameter.split("=");
    numbers.set(name, value);
  }
  if (version !== "v=19" || numbers.size !== 3 || rest.length > 0) {
    throw new ValueError(`${EXPECTED}, got an argon2id hash of another form (not shown); ${HOW}`);
  }
  const passes = bounded("t (passes)", numbers.get("t"), 1, MAX_PASSES);
  const lanes = bounded("p (lanes)", numbers.get("p"), 1, MAX_LANES);
  // RFC 9106: at least 8 KiB for each lane.
  const memory = bounded("m (memory)", numbers.get("m"), 8 * lanes, MAX_MEMORY_KIB, " KiB");
  const saltText = field("salt", salt, 8, 64);
  return `$argon2id$v=19$m=${memory},t=${passes},p=${lanes}$${saltText}$${field("hash", hash, 16, 128)}`;
}
