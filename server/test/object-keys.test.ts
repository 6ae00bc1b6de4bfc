import { glob, readFile } from "node:fs/promises";
import test from "ava";
import {
  auditHeadKey,
  COPYING_KEY,
  closingKey,
  INSTALLATION_KEY,
  manifestKey,
  meaningOf,
  objectKey,
  openingProbeKey,
  READINESS_PROBES,
  readinessProbeKey,
  readinessProbeTime,
  VERSIONS_PREFIX,
} from "../src/domain/object-keys.ts";

const ID = "01234567-89ab-4cde-8f01-23456789abcd";

test("what is made is recognized", (t) => {
  const key = objectKey("pg.main", ID);
  t.is(key, `collections/pg.main/${ID}`);
  t.is(manifestKey(key), `collections/pg.main/${ID}.manifest.json`);
  t.true(key.startsWith(VERSIONS_PREFIX));
  t.deepEqual(meaningOf(key), { kind: "object", collection: "pg.main", objectKey: key });
  t.deepEqual(meaningOf(manifestKey(key)), { kind: "manifest", collection: "pg.main", objectKey: key });
  for (const marker of [INSTALLATION_KEY, COPYING_KEY]) t.deepEqual(meaningOf(marker), { kind: "marker" });
  const probe = readinessProbeKey(1_767_225_600_000, ID);
  t.deepEqual(meaningOf(probe), { kind: "probe" });
  t.is(readinessProbeTime(probe), 1_767_225_600_000);
  t.deepEqual(meaningOf(openingProbeKey(ID)), { kind: "probe" });
  t.is(closingKey("acme"), "organizations/acme/closing.json");
  t.deepEqual(meaningOf(closingKey("acme")), { kind: "organization" });
  t.is(auditHeadKey(57n), "audit/heads/0000000000000057");
  t.deepEqual(meaningOf(auditHeadKey(57n)), { kind: "audit" });
});

const foreign = [
  "organizations/acme.json",
  "organizations/acme/closing.json/a",
  "audit/heads/57",
  "audit/heads/0000000000000057/a",
  "",
  "collections",
  "collections/a",
  `collections//${ID}`,
  `collections/a/b/${ID}`,
  `collections/a/${ID}/`,
  `collections/a/${ID.toUpperCase()}`,
  `collections/a/${ID}.manifest.json.manifest.json`,
  `collections/a/${ID}xmanifest-json`,
  `x/collections/a/${ID}`,
  `${INSTALLATION_KEY}.manifest.json`,
  "strongroom-probes",
  manifestKey("collections/a/x"),
];
for (const key of foreign) {
  test(`not a key of Strongroom: "${key}"`, (t) => t.deepEqual(meaningOf(key), { kind: "foreign" }));
}

test("keys of readiness without a time have none, so nothing deletes them for their age", (t) => {
  for (const key of [`${READINESS_PROBES}not-ours`, objectKey("a", ID), ""]) t.is(readinessProbeTime(key), Number.NaN);
});

test("keys are written in one file of the server only", async (t) => {
  const root = new URL("../src/", import.meta.url);
  const files = (await Array.fromAsync(glob("**/*.ts", { cwd: root }))).filter((f) => f !== "domain/object-keys.ts");
  t.true(files.length > 100);
  for (const file of files) {
    t.notRegex(
      await readFile(new URL(file, root), "utf8"),
      /["'`]collections\/|strongroom-(?:installation|copying)\.json|strongroom-probe|\.manifest\.json/,
      file,
    );
  }
});
