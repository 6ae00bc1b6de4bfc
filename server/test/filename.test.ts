import test from "ava";
import fc from "fast-check";
import { type FilenameFacts, versionFilename } from "../src/domain/filename.ts";

const FACTS: FilenameFacts = {
  template: "db-${version}.tar.gz",
  given: "",
  number: 7n,
  contentEncoding: "none",
  encryptionFormat: "openpgp",
  armored: false,
};

const cases: [title: string, facts: Partial<FilenameFacts>, expected: string][] = [
  ["binary OpenPGP", {}, "db-7.tar.gz.gpg"],
  ["armored OpenPGP", { armored: true }, "db-7.tar.gz.asc"],
  ["binary age", { encryptionFormat: "age" }, "db-7.tar.gz.age"],
  ["armored age", { encryptionFormat: "age", armored: true }, "db-7.tar.gz.age"],
  ["compressed", { contentEncoding: "zstd" }, "db-7.tar.gz.zst.gpg"],
  ["compressed and armored", { contentEncoding: "zstd", armored: true }, "db-7.tar.gz.zst.asc"],
  ["compressed age", { contentEncoding: "zstd", encryptionFormat: "age" }, "db-7.tar.gz.zst.age"],
  ["a given name wins over the template", { given: "dump.sql" }, "dump.sql.gpg"],
  ["a given name with its ending", { given: "dump.sql.gpg" }, "dump.sql.gpg"],
  ["a given name with both endings", { given: "dump.sql.zst.gpg", contentEncoding: "zstd" }, "dump.sql.zst.gpg"],
  ["a given name with the ending of compression", { given: "dump.zst", contentEncoding: "zstd" }, "dump.zst.gpg"],
  ["compression is put before the ending that is there", { given: "d.gpg", contentEncoding: "zstd" }, "d.zst.gpg"],
  ["compressed by the dump itself", { given: "dump.zst" }, "dump.zst.gpg"],
  ["a template with its ending", { template: "db-${version}.gpg" }, "db-7.gpg"],
  ["a template without a number", { template: "db" }, "db.gpg"],
  ["a template with two numbers", { template: "${version}/${version}" }, "7/7.gpg"],
  ["a given name is not a template", { given: "a-${version}" }, "a-${version}.gpg"],
  ["a large number", { number: 2n ** 63n - 1n }, "db-9223372036854775807.tar.gz.gpg"],
  ["letters beyond ASCII", { given: "Sicherung-März.sql" }, "Sicherung-März.sql.gpg"],
];

for (const [title, facts, expected] of cases) {
  test(`versionFilename: ${title}`, (t) => t.is(versionFilename({ ...FACTS, ...facts }), expected));
}

test("a name ends once in what was done, in order, and giving it again changes nothing", (t) => {
  const base = fc.stringMatching(/^[a-z0-9]{1,10}(\.(sql|tar|zst|gpg|asc|age)){0,4}$/);
  fc.assert(
    fc.property(
      base,
      fc.constantFrom("none" as const, "zstd" as const),
      fc.constantFrom("openpgp" as const, "age" as const),
      fc.boolean(),
      (given, contentEncoding, encryptionFormat, armored) => {
        const facts = { ...FACTS, given, contentEncoding, encryptionFormat, armored };
        const name = versionFilename(facts);
        const ending = encryptionFormat === "age" ? ".age" : armored ? ".asc" : ".gpg";
        t.true(name.endsWith(contentEncoding === "zstd" ? `.zst${ending}` : ending));
        t.true(name.startsWith(given.split(".")[0]!));
        t.is(versionFilename({ ...facts, given: name }), name);
      },
    ),
    { numRuns: 300 },
  );
});
