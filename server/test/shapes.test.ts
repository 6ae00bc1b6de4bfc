import { Role, RoleSchema } from "@strongroom/gen/strongroom/v1/resources_pb";
import { ObjectType } from "@strongroom/gen/strongroom/v1/session_service_pb";
import { PAGE } from "@strongroom/protocol/limits";
import test from "ava";
import fc from "fast-check";
import { ROLES } from "../src/domain/configuration.ts";
import { DomainError } from "../src/domain/errors.ts";
import {
  byteCountOf,
  collectionNameOf,
  dayOf,
  filenameOf,
  mapOf,
  pageSizeOf,
  scopeOf,
  sha256Of,
  textOf,
  uploadIdOf,
  versionCountOf,
} from "../src/transport/shapes.ts";

/** What a check refused: `field` of an INVALID_REQUEST, else the reason; undefined when it took the value. */
function refused(check: () => unknown): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    return error.reason === "INVALID_REQUEST" ? error.metadata.field : error.reason;
  }
}

const ID = "0199c3a1-7b1f-7c3e-9f00-0123456789ab";

const ids: [title: string, value: string, outcome: string | undefined][] = [
  ["a UUID", ID, undefined],
  ["nothing", "", "upload_id"],
  ["upper case, which no id has", ID.toUpperCase(), "UPLOAD_NOT_FOUND"],
  ["a text", "latest", "UPLOAD_NOT_FOUND"],
  ["something before", ` ${ID}`, "UPLOAD_NOT_FOUND"],
  ["a line after", `${ID}\n`, "UPLOAD_NOT_FOUND"],
  ["two", ID + ID, "UPLOAD_NOT_FOUND"],
  ["SQL", "' or 1=1 --", "UPLOAD_NOT_FOUND"],
  ["a path", "../../etc/passwd", "UPLOAD_NOT_FOUND"],
];

for (const [title, value, outcome] of ids) {
  test(`uploadIdOf: ${title}`, (t) => {
    t.is(
      refused(() => t.is(uploadIdOf(value), value)),
      outcome,
    );
  });
}

test("uploadIdOf: a long text does not come back whole", (t) => {
  const error = t.throws(() => uploadIdOf("x".repeat(100_000)), { instanceOf: DomainError });
  t.is(error?.metadata.upload_id?.length, 64);
  t.true(error!.message.length < 200);
});

test("collectionNameOf", (t) => {
  t.is(collectionNameOf("db"), "db");
  t.is(collectionNameOf("x".repeat(253)).length, 253);
  t.is(
    refused(() => collectionNameOf("")),
    "collection",
  );
  t.is(
    refused(() => collectionNameOf("x".repeat(254))),
    "collection",
  );
});

test("sha256Of", (t) => {
  const digest = new Uint8Array(32);
  t.is(sha256Of("sha256", digest), digest);
  for (const length of [0, 20, 31, 33, 64]) {
    t.is(
      refused(() => sha256Of("composite_sha256", new Uint8Array(length))),
      "composite_sha256",
    );
  }
});

test("textOf: length and control characters", (t) => {
  t.is(textOf("description", "", 3), "");
  t.is(textOf("description", "abc", 3), "abc");
  t.is(textOf("description", "Größe ✓ 漢字", 20), "Größe ✓ 漢字");
  t.is(
    refused(() => textOf("description", "abcd", 3)),
    "description",
  );
  for (const code of [0, 1, 7, 9, 10, 13, 27, 31, 127]) {
    t.is(
      refused(() => textOf("description", `a${String.fromCharCode(code)}b`, 10)),
      "description",
      `character ${code}`,
    );
  }
});

test("textOf: a message never repeats what was refused", (t) => {
  const error = t.throws(() => textOf("description", "secret".repeat(100), 10), { instanceOf: DomainError });
  t.notRegex(error!.message, /secret/);
});

const filenames: [title: string, value: string, good: boolean][] = [
  ["none", "", true],
  ["a plain name", "dump.sql", true],
  ["spaces inside", "my dump.sql", true],
  ["letters beyond ASCII", "Sicherung-März.sql", true],
  ["240 bytes", "x".repeat(240), true],
  ["241 bytes", "x".repeat(241), false],
  ["120 letters of two bytes", "ä".repeat(120), true],
  ["121 letters of two bytes", "ä".repeat(121), false],
  ["256 characters", "x".repeat(256), false],
  ["a slash", "a/b", false],
  ["a backslash", "a\\b", false],
  ["a hidden file", ".bashrc", false],
  ["the parent", "..", false],
  ["this directory", ".", false],
  ["a NUL", "a\0b", false],
  ["a line end", "a\r\nX-Header: 1", false],
];

for (const [title, value, good] of filenames) {
  test(`filenameOf: ${title}`, (t) => {
    t.is(
      refused(() => t.is(filenameOf(value), value)),
      good ? undefined : "filename",
    );
  });
}

test("mapOf: bounds of entries, keys and values", (t) => {
  const entries = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${i}`, "value"]));
  t.deepEqual(mapOf("labels", {}, 5), {});
  t.deepEqual(mapOf("labels", entries(32), 5), entries(32));
  t.deepEqual(mapOf("labels", { ["k".repeat(63)]: "12345" }, 5), { ["k".repeat(63)]: "12345" });
  t.is(
    refused(() => mapOf("labels", entries(33), 5)),
    "labels",
  );
  t.is(
    refused(() => mapOf("labels", { "": "x" }, 5)),
    "labels",
  );
  t.is(
    refused(() => mapOf("labels", { ["k".repeat(64)]: "x" }, 5)),
    "labels",
  );
  t.is(
    refused(() => mapOf("client_metadata", { host: "123456" }, 5)),
    "client_metadata[host]",
  );
  t.is(
    refused(() => mapOf("client_metadata", { host: "a\0b" }, 5)),
    "client_metadata[host]",
  );
});

test("scopeOf: every role of the contract, in collections", (t) => {
  t.deepEqual(scopeOf([]), []);
  const roles = RoleSchema.values.map(({ number }) => number).filter((number) => number !== Role.UNSPECIFIED);
  t.deepEqual(scopeOf([{ type: ObjectType.COLLECTION, name: "db", roles }]), [
    { type: "collection", name: "db", roles: [...ROLES] },
  ]);
  t.deepEqual(scopeOf([{ type: ObjectType.COLLECTION, name: "db", roles: [] }]), [
    { type: "collection", name: "db", roles: [] },
  ]);
});

const COLLECTION = ObjectType.COLLECTION;
const scopes: [title: string, elements: { type: ObjectType; name: string; roles: Role[] }[], field: string][] = [
  ["another type", [{ type: 99 as ObjectType, name: "db", roles: [] }], "scope[0].type"],
  ["no type", [{ type: ObjectType.UNSPECIFIED, name: "db", roles: [] }], "scope[0].type"],
  ["a long name", [{ type: COLLECTION, name: "x".repeat(254), roles: [] }], "scope[0].name"],
  ["a control character", [{ type: COLLECTION, name: "a\0", roles: [] }], "scope[0].name"],
  ["an unknown role", [{ type: COLLECTION, name: "db", roles: [Role.BACKUP_UPLOADER, 99 as Role] }], "scope[0].roles"],
  ["no role", [{ type: COLLECTION, name: "db", roles: [Role.UNSPECIFIED] }], "scope[0].roles"],
  [
    "the second element",
    [
      { type: COLLECTION, name: "db", roles: [] },
      { type: 2 as ObjectType, name: "db", roles: [] },
    ],
    "scope[1].type",
  ],
  ["101 elements", Array.from({ length: 101 }, () => ({ type: COLLECTION, name: "db", roles: [] })), "scope"],
];

for (const [title, elements, field] of scopes) {
  test(`scopeOf refuses ${title}`, (t) => {
    t.is(
      refused(() => scopeOf(elements)),
      field,
    );
  });
}

test("pageSizeOf: 0 is the usual, and no more than the most is given", (t) => {
  t.is(pageSizeOf(0, PAGE), 100);
  t.is(pageSizeOf(1, PAGE), 1);
  t.is(pageSizeOf(1000, PAGE), 1000);
  t.is(pageSizeOf(1001, PAGE), 1000);
  t.is(pageSizeOf(2 ** 31 - 1, PAGE), 1000);
  t.is(
    refused(() => pageSizeOf(-1, PAGE)),
    "page_size",
  );
});

test("byteCountOf: 0 and more", (t) => {
  t.is(byteCountOf("offset_bytes", 0n), 0n);
  t.is(byteCountOf("offset_bytes", 2n ** 63n - 1n), 2n ** 63n - 1n);
  t.is(
    refused(() => byteCountOf("offset_bytes", -1n)),
    "offset_bytes",
  );
});

test("versionCountOf: 0 and more, and it speaks of versions", (t) => {
  t.is(versionCountOf("version_count", 0n), 0n);
  const error = t.throws(() => versionCountOf("version_count", -1n), { instanceOf: DomainError });
  t.regex(error!.message, /expected a number of versions, at least 0, got -1/);
});

test("dayOf: days that there are", (t) => {
  t.is(dayOf("from_day", ""), undefined);
  for (const day of ["2026-01-31", "2024-02-29", "2026-02-28", "0001-01-01", "9999-12-31"])
    t.is(dayOf("from_day", day), day);
  const wrong = ["2026-02-30", "2026-02-29", "2026-04-31", "2026-00-10", "2026-13-01", "2026-01-00", "2026-1-1"];
  for (const day of [...wrong, "2026-01-32", "yesterday", "2026-01-01T00:00:00Z", " 2026-01-01", "+02026-01-01"])
    t.is(
      refused(() => dayOf("from_day", day)),
      "from_day",
      day,
    );
});

test("whatever comes, a check takes it or refuses it with a field", (t) => {
  const any = fc.oneof(fc.string({ maxLength: 300 }), fc.string({ unit: "binary", maxLength: 300 }));
  fc.assert(
    fc.property(any, (value) => {
      for (const check of [uploadIdOf, collectionNameOf, filenameOf, (v: string) => textOf("text", v, 100)]) {
        refused(() => t.is(check(value), value));
      }
      refused(() => scopeOf([{ type: COLLECTION, name: value, roles: [Role.BACKUP_UPLOADER] }]));
      refused(() => mapOf("labels", { [value]: value }, 100));
    }),
    { numRuns: 300 },
  );
});

test("control characters and broken text are refused, also in keys", (t) => {
  t.is(
    refused(() => mapOf("labels", { "a\0b": "x" }, 5)),
    "labels",
  );
  t.is(
    refused(() => textOf("reason", "\ud83d", 5)),
    "reason",
  );
});
