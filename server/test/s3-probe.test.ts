import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { S3Client } from "@aws-sdk/client-s3";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { S3_PEERS, type S3Peer, type S3PeerName, startS3 } from "@strongroom/testkit/peers/s3";
import test from "ava";
import { listUploads } from "../src/adapters/s3/bucket.ts";
import { openS3Store } from "../src/adapters/s3/open-s3-store.ts";
import type { S3Location } from "../src/adapters/s3/s3-location.ts";
import { parseStorage } from "../src/adapters/stores.ts";
import { BlobStoreError } from "../src/app/ports/blob-store.ts";
import { collect } from "./support/blob-store-tools.ts";
import { locationIn, openS3, selfSigned, useCredentials } from "./support/s3-tools.ts";

const peers = new Map<S3PeerName, Promise<S3Peer>>();
const peer = async (name: S3PeerName): Promise<S3Peer> => {
  const known = peers.get(name) ?? startS3(name);
  peers.set(name, known);
  useCredentials(await known);
  return await known;
};
test.after.always(async () => {
  for (const each of peers.values()) await (await each).remove();
});

const refusal = async (t: import("ava").ExecutionContext, location: S3Location): Promise<string> => {
  const error = await t.throwsAsync(
    openS3Store(location, () => {}),
    { instanceOf: BlobStoreError },
  );
  t.notRegex(`${error.message} ${error.stack} ${String(error.cause)}`, /strongroom-test-secret|hush/);
  return error.message;
};

for (const name of S3_PEERS) {
  test.serial(`${name} shows what it can do, and the probe leaves nothing behind`, async (t) => {
    if (!hasPeers(t, name)) return;
    const server = await peer(name);
    const notes: Record<string, unknown>[] = [];
    const store = await openS3(t, locationIn(server, "probed"), { note: (fields) => notes.push(fields) });
    t.like(notes[0], {
      verifies_payload_hash: true,
      verifies_checksums: true,
      lists_uploads: name === "minio" ? "whole-bucket" : "by-prefix",
    });
    t.true(store.capabilities.verifiesPartDigests);
    t.deepEqual(await collect(store.list("")), []);
    const client = new S3Client({ endpoint: server.endpoint, region: server.region, forcePathStyle: true });
    t.teardown(() => client.destroy());
    t.deepEqual(await collect(listUploads({ client, name: server.bucket }, undefined)), []);
  });

  test.serial(
    `${name}: what is wrong with bucket, credentials, region or address is said with what to do`,
    async (t) => {
      if (!hasPeers(t, name)) return;
      const server = await peer(name);
      const location = locationIn(server);
      t.regex(await refusal(t, { ...location, bucket: "not-there" }), /bucket does not exist.*NoSuchBucket/);
      t.regex(await refusal(t, { ...location, region: "eu-west-1" }), /region is wrong.*option region/);
      t.regex(
        await refusal(t, { ...location, endpoint: "http://127.0.0.1:1" }),
        /nothing listens.*endpoint.*ECONNREFUSED/,
      );
      const secure = server.endpoint.replace("http:", "https:");
      t.regex(await refusal(t, { ...location, endpoint: secure }), /does not speak TLS/);

      process.env.AWS_SECRET_ACCESS_KEY = "hush-hush";
      t.regex(await refusal(t, location), /AWS_SECRET_ACCESS_KEY.*SignatureDoesNotMatch/);
      process.env.AWS_ACCESS_KEY_ID = "nobody";
      t.regex(await refusal(t, location), /Check AWS_ACCESS_KEY_ID.*(InvalidAccessKeyId|XAdminUserNotFound)/);
      for (const variable of Object.keys(server.env)) delete process.env[variable];
      process.env.AWS_EC2_METADATA_DISABLED = "true";
      process.env.AWS_SHARED_CREDENTIALS_FILE = process.env.AWS_CONFIG_FILE = "/dev/null";
      t.regex(await refusal(t, location), /no credentials.*AWS_ACCESS_KEY_ID/);
    },
  );
}

test.serial("a certificate that nobody trusts is refused, with how to trust it", async (t) => {
  if (!hasPeers(t, "versitygw", "openssl")) return;
  const tls = await selfSigned();
  t.teardown(() => tls.remove());
  const server = await startS3("versitygw", tls);
  t.teardown(() => server.remove());
  useCredentials(server);
  t.regex(await refusal(t, locationIn(server)), /not trusted.*caFile.*NODE_EXTRA_CA_CERTS/);
  t.regex(await refusal(t, { ...locationIn(server), caFile: "/not/there.pem" }), /caFile.*cannot be read \(ENOENT\)/);
});

/** A store of few words: enough of S3 to be probed, without what `lacks` says. */
async function modestStore(
  t: import("ava").ExecutionContext,
  lacks: "verification" | "list of parts",
): Promise<S3Location> {
  const parts = new Map<string, number>();
  let uploads = 0;
  const server = createServer(async (request, response) => {
    let size = 0;
    for await (const chunk of request) size += (chunk as Buffer).length;
    const url = new URL(request.url ?? "", "http://localhost");
    const id = url.searchParams.get("uploadId");
    const xml = (body: string, status = 200) =>
      response.writeHead(status, { "content-type": "application/xml" }).end(body);
    if (url.searchParams.get("list-type") === "2") return xml("<ListBucketResult/>");
    if (request.method === "POST") {
      if (request.headers["x-amz-checksum-algorithm"] !== undefined)
        return xml("<Error><Code>NotImplemented</Code></Error>", 501);
      uploads += 1;
      return xml(`<InitiateMultipartUploadResult><UploadId>u${uploads}</UploadId></InitiateMultipartUploadResult>`);
    }
    if (id === null) return xml("<Error><Code>NotImplemented</Code></Error>", 501);
    if (request.method === "PUT") {
      parts.set(id, size);
      return response.writeHead(200, { etag: '"e"' }).end();
    }
    if (request.method === "DELETE") {
      parts.delete(id);
      return response.writeHead(204).end();
    }
    if (lacks === "list of parts" && parts.has(id)) return xml("<Error><Code>NotImplemented</Code></Error>", 501);
    if (!parts.has(id)) return xml("<Error><Code>NoSuchUpload</Code></Error>", 404);
    const part = `<Part><PartNumber>1</PartNumber><ETag>"e"</ETag><Size>${parts.get(id)}</Size></Part>`;
    return xml(`<ListPartsResult>${part}</ListPartsResult>`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => server.close());
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b" });
  const { port } = server.address() as AddressInfo;
  return parseStorage(`s3://backups?endpoint=http://127.0.0.1:${port}&pathStyle=true`) as S3Location;
}

test.serial("for a store that verifies nothing, the server hashes", async (t) => {
  const notes: Record<string, unknown>[] = [];
  const store = await openS3(t, await modestStore(t, "verification"), { note: (fields) => notes.push(fields) });
  t.false(store.capabilities.verifiesPartDigests);
  t.like(notes[0], { verifies_payload_hash: false, verifies_checksums: false, lists_uploads: "no" });
});

test.serial("a store that does not list parts is refused", async (t) => {
  t.regex(await refusal(t, await modestStore(t, "list of parts")), /list the parts.*Use another store/);
});
