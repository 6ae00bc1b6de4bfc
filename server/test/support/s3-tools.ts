import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { type S3Peer, type S3PeerName, startS3, type TlsFiles } from "@strongroom/testkit/peers/s3";
import type { ExecutionContext, TestFn } from "ava";
import type { PartLister } from "../../src/adapters/blob-store/part-lister.ts";
import { openS3Store } from "../../src/adapters/s3/open-s3-store.ts";
import type { S3Location } from "../../src/adapters/s3/s3-location.ts";
import { parseStorage } from "../../src/adapters/stores.ts";
import type { BlobStore } from "../../src/app/ports/blob-store.ts";
import { blobStoreSuite } from "./blob-store-suite.ts";

/** Makes the test servers' credentials those of this process, as the SDK's default chain reads them. */
export function useCredentials(peer: S3Peer): void {
  Object.assign(process.env, peer.env);
}

/** A certificate for 127.0.0.1 signed by itself, in a folder of its own. */
export async function selfSigned(): Promise<TlsFiles & { remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-tls-"));
  const files = { certificate: join(folder, "certificate.pem"), key: join(folder, "key.pem") };
  const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
  const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await promisify(execFile)("openssl", [
    ...["req", "-x509", ...made, ...subject],
    ...["-keyout", files.key, "-out", files.certificate],
  ]);
  return { ...files, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Where a test keeps its objects: a prefix of its own. */
export function locationIn(peer: S3Peer, prefix: string = randomUUID(), more = ""): S3Location {
  return parseStorage(`${peer.storageUrl(prefix)}${more}`) as S3Location;
}

/** Opens a store that the test closes at its end. What it notes is left unread unless asked for. */
export async function openS3(
  t: ExecutionContext,
  location: S3Location,
  { note = () => {}, silenceMs }: { note?: (fields: Record<string, unknown>) => void; silenceMs?: number } = {},
): Promise<BlobStore & PartLister> {
  const store = await openS3Store({ ...location, ...(silenceMs === undefined ? {} : { silenceMs }) }, note);
  t.teardown(() => store.close());
  return store;
}

/**
 * Runs the suite of all stores against a real server, in plain text and over TLS. Tests run one after the other, since
 * parts are large.
 */
export function s3Suite(test: TestFn, name: S3PeerName): void {
  for (const secure of [false, true]) {
    const title = `${name}${secure ? " over TLS" : ""}`;
    let started: Promise<{ peer: S3Peer; more: string }> | undefined;
    const ending: (() => Promise<void>)[] = [];
    const start = async () => {
      const tls = secure ? await selfSigned() : undefined;
      if (tls !== undefined) ending.push(() => tls.remove());
      const peer = await startS3(name, tls);
      ending.push(() => peer.remove());
      useCredentials(peer);
      return { peer, more: tls === undefined ? "" : `&caFile=${encodeURIComponent(tls.certificate)}` };
    };
    test.after.always(`${title}: ends the server`, async () => {
      for (const end of ending.reverse()) await end();
    });
    const needed = [name, ...(secure ? ["openssl"] : [])];
    const declare = ((testTitle: string, run: (t: ExecutionContext) => Promise<void>) => {
      test.serial(testTitle, async (t) => {
        if (hasPeers(t, ...needed)) await run(t);
      });
    }) as unknown as TestFn;
    blobStoreSuite(declare, title, async (t) => {
      started ??= start();
      const { peer, more } = await started;
      const location = locationIn(peer, undefined, more);
      return { store: await openS3(t, location), reopen: async () => await openS3(t, location) };
    });
  }
}
