import test from "ava";
import { parseStorage } from "../src/storage-url.ts";

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
