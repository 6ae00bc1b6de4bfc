import { quoted, ValueError } from "@strongroom/protocol/sizes";

/** Names of users, access keys and organizations. A `$` divides user and access key in a login, so none contains it. */
const LOGIN_NAME = /^[A-Za-z0-9][A-Za-z0-9@._-]{0,252}$/;
/** Names of collections are parts of paths and object keys, also where upper and lower case are one. */
const PATH_NAME = /^[a-z0-9][a-z0-9._-]{0,252}$/;

/**
 * Checks the name of a collection: 1 to 253 of `a-z 0-9 . _ -`, beginning with a letter or digit, not ending with a dot
 * and without `..`.
 * @throws {ValueError}
 */
export function checkCollectionName(name: string): string {
  if (PATH_NAME.test(name) && !name.includes("..") && !name.endsWith(".")) return name;
  throw new ValueError(
    `expected a name of 1 to 253 lower-case letters, digits, ".", "_" and "-", beginning with a letter or ` +
      `digit and without "..", got ${quoted(name)}`,
  );
}

/**
 * Checks the name of a user, access key or organization: as of a collection, but also with upper case and `@`.
 * @throws {ValueError}
 */
export function checkLoginName(name: string): string {
  if (LOGIN_NAME.test(name) && !name.includes("..") && !name.endsWith(".")) return name;
  const dollar = name.includes("$") ? '; "$" stands between user and access key in a login' : "";
  throw new ValueError(
    `expected a name of 1 to 253 letters, digits, "@", ".", "_" and "-", beginning with a letter or digit and ` +
      `without "..", got ${quoted(name)}${dollar}`,
  );
}

/** Number of single-character changes between two words (Levenshtein), not counting case. */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (const [i, a] of [...one.toLowerCase()].entries()) {
    const next = [i + 1];
    for (const [j, b] of [...other.toLowerCase()].entries()) {
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (a === b ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1)!;
}

/** `; did you mean "..."?` with the known word nearest to a misspelt one, or nothing when none is near. */
export function suggestion(word: string, known: Iterable<string>): string {
  if (word.length > 64) return "";
  let best: string | undefined;
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const steps = distance(word, candidate);
    if (steps < least) {
      best = candidate;
      least = steps;
    }
  }
  return best === undefined ? "" : `; did you mean ${quoted(best)}?`;
}
