import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import test from "ava";
import { openStore, parseStorage } from "../src/adapters/stores.ts";
import { importedFile, importsOf } from "./support/imports.ts";

const ROOT = new URL("../../", import.meta.url);

test("reading URLs loads no package of others and no store, opening one loads only that one", async (t) => {
  const loaded = new Set<string>();
  const waiting = ["server/src/adapters/stores.ts"];
  const later: string[] = [];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    loaded.add(file);
    for (const { specifier, kind } of importsOf(await readFile(new URL(file, ROOT), "utf8"))) {
      const path = importedFile(file, specifier);
      t.true(path !== undefined || specifier.startsWith("node:"), `${file} imports ${specifier}`);
      if (kind === "dynamic") later.push(path!);
      if (kind === "static" && path !== undefined && !loaded.has(path)) waiting.push(path);
    }
  }
  t.true(loaded.has("server/src/adapters/s3/s3-location.ts"));
  t.false(
    [...loaded].some((file) => /blob-store\.ts$|open-/.test(file)),
    [...loaded].join(),
  );
  t.deepEqual(later.map((file) => file.replace("server/src/adapters/", "")).sort(), [
    "filesystem/directory-blob-store.ts",
    "memory/memory-blob-store.ts",
    "s3/open-s3-store.ts",
  ]);
});

test("a directory and memory", async (t) => {
  t.deepEqual(parseStorage("file:///srv/backups"), { kind: "directory", path: "/srv/backups" });
  t.deepEqual(parseStorage("file:/srv/a%20b"), { kind: "directory", path: "/srv/a b" });
  t.deepEqual(parseStorage("file:./x"), { kind: "directory", path: resolve("x") });
  t.deepEqual(parseStorage("file:///srv/a%3Fb?create_dir=true&metadata=skip"), { kind: "directory", path: "/srv/a?b" });
  t.throws(() => parseStorage("file:///srv/a?b"), { message: /%3F/ });
  t.deepEqual(parseStorage("mem://"), { kind: "memory", discard: false });
  t.deepEqual(parseStorage("mem://discard"), { kind: "memory", discard: true });
  const store = await openStore(parseStorage("mem://discard"), { info: () => t.fail("it has nothing to say") });
  t.is(store.capabilities.name, "memory");
});

const DEFAULTS = {
  kind: "s3",
  bucket: "backups",
  prefix: "",
  endpoint: undefined,
  region: undefined,
  pathStyle: false,
  caFile: undefined,
  minPartSize: 5n * 1024n * 1024n,
  maxParts: 10_000,
} as const;

test("an S3 URL names bucket, prefix and how to get there", (t) => {
  t.deepEqual(parseStorage("s3://backups"), DEFAULTS);
  t.deepEqual(parseStorage("s3://backups/"), DEFAULTS);
  t.deepEqual(parseStorage("s3://backups/strongroom/prod/?region=eu-central-1"), {
    ...DEFAULTS,
    prefix: "strongroom/prod/",
    region: "eu-central-1",
  });
  const all =
    "s3://backups/a?endpoint=https%3A%2F%2Fs3.example.org%3A9000&region=r-1&pathStyle=true&caFile=/etc/ca.pem&minPart=8M&maxParts=1000";
  t.deepEqual(parseStorage(all), {
    kind: "s3",
    bucket: "backups",
    prefix: "a/",
    endpoint: "https://s3.example.org:9000",
    region: "r-1",
    pathStyle: true,
    caFile: "/etc/ca.pem",
    minPartSize: 8n * 1024n * 1024n,
    maxParts: 1000,
  });
});

test("the options of existing installations are understood", (t) => {
  const old = "s3://backups?endpoint=minio.example.org:9000&disableSSL=true&s3ForcePathStyle=true&region=eu-central-1";
  t.like(parseStorage(old), { endpoint: "http://minio.example.org:9000", pathStyle: true, region: "eu-central-1" });
  t.like(parseStorage("s3://backups?endpoint=minio:9000"), { endpoint: "https://minio:9000", pathStyle: false });
  t.like(parseStorage("s3://backups?endpoint=http://minio:9000&disableSSL=true&awssdk=v2"), {
    endpoint: "http://minio:9000",
  });
  t.like(parseStorage("s3://backups?s3ForcePathStyle=true&pathStyle=false"), { pathStyle: false });
  t.like(parseStorage("s3://backups?prefix=a/b/"), { prefix: "a/b/" });
  t.throws(() => parseStorage("s3://backups?prefix=a"), { message: /ends in "\/"/ });
  t.throws(() => parseStorage("s3://backups/a?prefix=b/"), { message: /leave one of them out/ });
});

const REFUSED: readonly (readonly [url: string, message: RegExp])[] = [
  ["s3://", /expected s3:\/\/BUCKET/],
  ["s3:backups", /expected s3:\/\/BUCKET/],
  ["s3://b", /3 to 63/],
  ["s3://backups/../other", /prefix/],
  ["s3://backups/a//b", /prefix/],
  ["s3://backups?pathstyle=true", /did you mean pathStyle\?/],
  ["s3://backups?end_point=x", /did you mean endpoint\?/],
  ["s3://backups?acl=public-read", /no option "acl"; it has endpoint, region/],
  ["s3://backups?pathStyle=yes", /true or false/],
  ["s3://backups?pathStyle=", /no value/],
  ["s3://backups?region=a&region=b", /twice/],
  ["s3://backups?region=a%20b", /region is a name/],
  ["s3://backups?endpoint=ftp://x", /HOST:PORT/],
  ["s3://backups?endpoint=https://x&disableSSL=true", /contradicts/],
  ["s3://backups?caFile=ca.pem", /absolute path/],
  ["s3://backups?minPart=6G", /minPart/],
  ["s3://backups?maxParts=10001", /maxParts/],
  ["s3://backups?maxParts=0", /maxParts/],
  ["file://host/backups", /expected file:\/\/\/DIR/],
  ["file:", /expected file:\/\/\/DIR/],
  ["mem://x", /expected mem:\/\/ and nothing after it/],
  ["backups", /expected s3:\/\/BUCKET\/PREFIX, file:\/\/\/DIR or mem:\/\/, got "\.\.\."/],
  ["gs://backups", /expected s3:\/\/BUCKET\/PREFIX, file:\/\/\/DIR or mem:\/\/, got "gs:\.\.\."/],
];

for (const [url, message] of REFUSED) {
  test(`refused: ${url}`, (t) => {
    t.throws(() => parseStorage(url), { instanceOf: RangeError, message });
  });
}

test("a credential in a URL is refused and not repeated", (t) => {
  const urls = [
    "s3://hush-id:hush-secret@backups",
    "s3://hush-id@backups/prefix",
    "s3://backups?endpoint=https://hush-id:hush-secret@s3.example.org",
    "s3://backups?accessKey=hush",
    "s3://backups?aws_secret_access_key=hush",
    "s3://backups?sessionToken=hush",
    "s3://backups?password=hush",
    "s3://hush:hush/backups",
  ];
  for (const url of urls) {
    const error = t.throws(() => parseStorage(url), { message: /no place for credentials.*AWS_ACCESS_KEY_ID/ }, url);
    t.notRegex(error?.message ?? "", /hush/);
  }
});
