/** Whatever documents are sent to be judged: a plan or a refusal with places, no crash, no hang, nothing written. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MAX_DOCUMENTS_BYTES } from "@strongroom/protocol/limits";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { applyObjects } from "../src/app/objects/change-objects.ts";
import { DomainError } from "../src/domain/errors.ts";
import { openDatabase } from "./support/databases.ts";
import { principal, user } from "./support/harness.ts";

const HEAD = "apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupCollection\nmetadata: {name: db}\n";
const SPEC = "spec: {maxBackupsCount: 2, maxOneVersionSize: 1M, maxCollectionSize: 10M}\n";
const FINE = `${HEAD}${SPEC}`;
const admin = principal(user("ann", { roles: ["systemAdmin"] }));

/** Judges documents without writing them; fails the test on anything but an answer. */
async function judge(t: ExecutionContext) {
  const dir = await temporaryFolder(t);
  const file = join(dir, "c.yaml");
  await writeFile(file, FINE);
  const config = await ConfigFilesSource.open(dir, { settle: async () => {} });
  const database = await openDatabase("PGlite", () => new Date());
  t.teardown(async () => await database.close());
  const options = { dryRun: true, expectedRevision: "", allowNoAdmin: false, confirmRemovals: 0n };
  return async (documents: string): Promise<string> => {
    try {
      await applyObjects(
        { config, database, log: { debug() {}, info() {}, warn() {}, error() {} }, sha256: String },
        admin,
        {
          documents,
          ...options,
        },
      );
      return "fine";
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      for (const { line, reason } of error.findings) t.true(line >= 1 && reason !== "", reason);
      return error.reason;
    } finally {
      t.is(await readFile(file, "utf8"), FINE);
    }
  };
}

const full = (text: string) => text.repeat(Math.floor(MAX_DOCUMENTS_BYTES / text.length));
const bomb = Array.from({ length: 30 }, (_, i) => `a${i}: &a${i} [${`*a${i - 1},`.repeat(i === 0 ? 0 : 9)}x]`).join(
  "\n",
);

/** Troubles that readers of YAML had, each with what may be said of it. */
const KEPT: readonly (readonly [string, string, RegExp])[] = [
  ["aliases that multiply", `${HEAD}${bomb}\n${SPEC}`, /^OBJECTS_INVALID$/],
  ["an alias of itself", `${HEAD}spec: &a {b: *a}\n`, /^OBJECTS_INVALID$/],
  ["an alias of nothing", `${HEAD}spec: *none\n`, /^OBJECTS_INVALID$/],
  ["a merge of itself", `${HEAD}spec: &a\n  <<: *a\n`, /^OBJECTS_INVALID$/],
  ["a huge number", FINE.replace("2", "9".repeat(100_000)), /^OBJECTS_INVALID$/],
  ["a huge exponent", FINE.replace("2", "1e999999999"), /^OBJECTS_INVALID$/],
  ["a huge size", FINE.replace("1M", "9".repeat(1000)), /^OBJECTS_INVALID$/],
  ["NUL", FINE.replace("db", "d\u0000b"), /^OBJECTS_INVALID$/],
  ["NUL, escaped", FINE.replace("db", '"d\\0b"'), /^OBJECTS_INVALID$/],
  ["half a surrogate pair", FINE.replace("db", '"\ud800"'), /^OBJECTS_INVALID$/],
  ["a field twice", `${HEAD}${HEAD}${SPEC}`, /^OBJECTS_INVALID$/],
  ["names of the language", `${HEAD}spec: {__proto__: {maxBackupsCount: 2}, constructor: 1}\n`, /^OBJECTS_INVALID$/],
  ["tabs", `${HEAD}spec:\n\tmaxBackupsCount: 2\n`, /^OBJECTS_INVALID$/],
  ["a mark of byte order", `\ufeff${FINE}`, /^(fine|OBJECTS_INVALID)$/],
  ["ends of lines as in Windows", FINE.replaceAll("\n", "\r\n"), /^fine$/],
  ["a double quote that never ends", `${HEAD}spec: "${"x".repeat(1000)}\n`, /^OBJECTS_INVALID$/],
  ["a single quote that never ends", `${HEAD}spec: '\n`, /^OBJECTS_INVALID$/],
  ["tags", `${HEAD}spec: !!js/function "x"\n`, /^OBJECTS_INVALID$/],
  ["nothing but white space", " \n\t\n", /^INVALID_REQUEST$/],
  ["full of lists", full("["), /^OBJECTS_INVALID$/],
  ["full of mappings", full("{a: "), /^OBJECTS_INVALID$/],
  ["full of documents", full("---\n"), /^OBJECTS_INVALID$/],
  ["full of comments", full("#\n"), /^OBJECTS_INVALID$/],
  ["full of keys", full("? "), /^OBJECTS_INVALID$/],
  ["full of one word", full("x"), /^OBJECTS_INVALID$/],
];

test("what was a trouble before is answered", async (t) => {
  const judged = await judge(t);
  for (const [what, documents, expected] of KEPT) t.regex(await judged(documents), expected, what);
});

test("documents near to right ones, and text that is none, are answered", async (t) => {
  const judged = await judge(t);
  const piece = fc.constantFrom(
    ...[
      "---\n",
      "...\n",
      "\t",
      "  ",
      "\n",
      "\r\n",
      "- ",
      "? ",
      ": ",
      "{",
      "}",
      "[",
      "]",
      '"',
      "'",
      "&a ",
      "*a",
      "<<: ",
    ],
    ...["!!binary ", "|\n", ">-\n", "%YAML 9.9\n", "\u0000", "\ufeff", "\u2028", "1e999", "~", "<hidden>", "spec:\n"],
  );
  const near = fc.tuple(fc.nat(FINE.length), fc.nat(20), fc.array(fc.oneof(piece, fc.string()), { maxLength: 6 }));
  await fc.assert(
    fc.asyncProperty(fc.array(near, { minLength: 1, maxLength: 3 }), async (changes) => {
      let documents = FINE;
      for (const [at, length, parts] of changes)
        documents = documents.slice(0, at) + parts.join("") + documents.slice(at + length);
      t.regex(await judged(documents), /^(fine|OBJECTS_INVALID|INVALID_REQUEST)$/);
    }),
    { numRuns: 300 },
  );
});
