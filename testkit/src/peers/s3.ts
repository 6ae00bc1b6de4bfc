/** Real S3 servers in a temporary folder. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { get as getHttp } from "node:http";
import { get as getHttps } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endWithUs } from "../processes.ts";
import { freePort, requirePeer } from "./programs.ts";

/** S3 servers that nobody here wrote. */
export const S3_PEERS = ["versitygw", "minio"] as const;

/** Name of an S3 server. */
export type S3PeerName = (typeof S3_PEERS)[number];

/** A certificate and its key, as files in PEM. */
export interface TlsFiles {
  readonly certificate: string;
  readonly key: string;
}

/** A running S3 server of this process' own. Its user owns the bucket. */
export interface S3Peer {
  readonly name: S3PeerName;
  /** For example `http://127.0.0.1:9000`. */
  readonly endpoint: string;
  readonly bucket: string;
  /** The folder in which the server keeps the bucket. */
  readonly folder: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** The variables that the AWS SDK and `aws` read. */
  readonly env: Readonly<Record<string, string>>;
  /** Storage URL of the server: `s3://bucket/prefix?...`. */
  storageUrl(prefix?: string): string;
  /** The running process; undefined while it is stopped. */
  readonly pid: () => number | undefined;
  /** Ends the server in order, or by kill -9. */
  stop(how: "term" | "kill"): Promise<void>;
  /** Starts it again on the same data and port, and waits until it answers. */
  start(): Promise<void>;
  /** Ends the server and deletes its data. */
  remove(): Promise<void>;
}

const ACCESS_KEY_ID = "strongroom-test";
const SECRET_ACCESS_KEY = "strongroom-test-secret";
const REGION = "us-east-1";
const BUCKET = "backups";

/** Starts an S3 server with one empty bucket on a free port of loopback. */
export async function startS3(name: S3PeerName, tls?: TlsFiles): Promise<S3Peer> {
  const folder = await mkdtemp(join(tmpdir(), `strongroom-${name}-`));
  const data = join(folder, "data");
  // Both keep a bucket as a folder, and take one that is there when they start.
  await mkdir(join(data, BUCKET), { recursive: true });
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const { args, env } =
    name === "versitygw" ? await versitygw(folder, data, address, tls) : await minio(folder, data, address, tls);
  let child: ChildProcess | undefined;
  let log = "";
  const endpoint = `${tls === undefined ? "http" : "https"}://${address}`;

  const start = async () => {
    const started = spawn(requirePeer(name), args, {
      cwd: folder,
      env: { PATH: process.env.PATH, HOME: folder, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child = started;
    endWithUs(started, "SIGKILL");
    for (const stream of [started.stdout, started.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        log = (log + chunk).slice(-20_000);
      });
    }
    for (let waited = 0; waited < 60_000; waited += 50) {
      if (started.exitCode !== null || started.signalCode !== null) throw new Error(`${name} ended:\n${log}`);
      if (await answers(endpoint)) return;
      await sleep(50);
    }
    throw new Error(`${name} does not answer after 60 s:\n${log}`);
  };
  const stop = async (how: "term" | "kill") => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    const ended = once(running, "close");
    running.kill(how === "term" ? "SIGTERM" : "SIGKILL");
    await ended;
  };
  const remove = async () => {
    await stop("kill");
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await remove();
    throw error;
  }
  return {
    name,
    endpoint,
    bucket: BUCKET,
    folder: join(data, BUCKET),
    region: REGION,
    accessKeyId: ACCESS_KEY_ID,
    secretAccessKey: SECRET_ACCESS_KEY,
    env: { AWS_ACCESS_KEY_ID: ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: SECRET_ACCESS_KEY, AWS_REGION: REGION },
    storageUrl: (prefix = "") =>
      `s3://${BUCKET}/${prefix}?endpoint=${encodeURIComponent(endpoint)}&region=${REGION}&pathStyle=true`,
    pid: () => child?.pid,
    stop,
    start,
    remove,
  };
}

interface Launch {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

async function versitygw(folder: string, data: string, address: string, tls: TlsFiles | undefined): Promise<Launch> {
  // Beside the data, since temporary file systems may lack extended attributes.
  const sidecar = join(folder, "sidecar");
  await mkdir(sidecar);
  const certificate = tls === undefined ? [] : ["--cert", tls.certificate, "--key", tls.key];
  return {
    args: ["--port", address, "--region", REGION, "--quiet", ...certificate, "posix", "--sidecar", sidecar, data],
    env: { ROOT_ACCESS_KEY: ACCESS_KEY_ID, ROOT_SECRET_KEY: SECRET_ACCESS_KEY },
  };
}

async function minio(folder: string, data: string, address: string, tls: TlsFiles | undefined): Promise<Launch> {
  const certificates = join(folder, "certs");
  await mkdir(certificates);
  if (tls !== undefined) {
    await copyFile(tls.certificate, join(certificates, "public.crt"));
    await copyFile(tls.key, join(certificates, "private.key"));
  }
  return {
    args: ["server", "--quiet", "--address", address, "--certs-dir", certificates, data],
    env: {
      MINIO_ROOT_USER: ACCESS_KEY_ID,
      MINIO_ROOT_PASSWORD: SECRET_ACCESS_KEY,
      MINIO_SITE_REGION: REGION,
      MINIO_UPDATE: "off",
      MINIO_BROWSER: "off",
    },
  };
}

/** Whether anything speaks HTTP there; a refusal for lack of credentials is an answer. */
async function answers(endpoint: string): Promise<boolean> {
  const get = endpoint.startsWith("https:") ? getHttps : getHttp;
  return await new Promise((resolve) => {
    const request = get(endpoint, { rejectUnauthorized: false, timeout: 2000 }, (response) => {
      response.resume();
      resolve(response.statusCode !== undefined && response.statusCode < 500);
    });
    request.once("error", () => resolve(false));
    request.once("timeout", () => request.destroy());
  });
}
