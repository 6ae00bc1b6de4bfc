import { readFile } from "node:fs/promises";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { Readable } from "node:stream";
import { createSecureContext, getCACertificates } from "node:tls";
import { S3Client } from "@aws-sdk/client-s3";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { BlobStoreError } from "../../app/ports/blob-store.ts";
import { PartBody, type SignedRequest } from "./part-request.ts";

/** Where and how an S3 client connects. */
export interface S3ClientOptions {
  /** With scheme; undefined for AWS itself. */
  readonly endpoint: string | undefined;
  /** Undefined: as the environment says. */
  readonly region: string | undefined;
  readonly pathStyle: boolean;
  /** File in PEM with certificates that are trusted beside the usual ones. */
  readonly caFile: string | undefined;
  /** Give up a part when the store takes and says nothing for this long, in milliseconds. */
  readonly silenceMs: number;
}

/** Hundreds of uploads at once have two segments under way each. */
const MOST_SOCKETS = 1024;
/** Servers close idle connections after a while; closing them first avoids sending into one that is about to close. */
const IDLE_SOCKET_MS = 4000;
const CONNECT_MS = 10_000;

/**
 * Makes an S3 client on connections that are kept open. Bodies of parts go out through {@link PartBody}, everything
 * else through the SDK's own handler. The SDK repeats nothing and computes no checksums: callers do both where it makes
 * sense. Credentials come from the SDK's default chain.
 * @throws BlobStoreError when the file of certificates cannot be read.
 */
export async function createS3Client(options: S3ClientOptions): Promise<S3Client> {
  const agentOptions = { keepAlive: true, maxSockets: MOST_SOCKETS, timeout: IDLE_SOCKET_MS };
  // One context for all connections: reading some hundred certificates takes longer than a handshake.
  const secureContext = createSecureContext(
    options.caFile === undefined ? {} : { ca: [...getCACertificates(), await readCertificates(options.caFile)] },
  );
  const agents = {
    http: new HttpAgent(agentOptions),
    https: new HttpsAgent({ ...agentOptions, secureContext }),
  };
  return new S3Client({
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    // Servers other than AWS mostly ignore it, but a signature needs one.
    ...(options.region === undefined
      ? options.endpoint === undefined || process.env.AWS_REGION
        ? {}
        : { region: "us-east-1" }
      : { region: options.region }),
    forcePathStyle: options.pathStyle,
    maxAttempts: 1,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    expectContinueHeader: false,
    requestHandler: requestHandler(agents, options.silenceMs),
  });
}

async function readCertificates(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new BlobStoreError(
      `The option caFile names ${file}, which cannot be read (${(error as NodeJS.ErrnoException).code}).`,
    );
  }
}

function requestHandler(agents: { http: HttpAgent; https: HttpsAgent }, silenceMs: number) {
  const small = new NodeHttpHandler({
    httpAgent: agents.http,
    httpsAgent: agents.https,
    connectionTimeout: CONNECT_MS,
    // A warning about waiting requests would go to the console.
    socketAcquisitionWarningTimeout: 2 ** 31 - 1,
  });
  type Handle = NodeHttpHandler["handle"];
  return {
    metadata: small.metadata,
    httpHandlerConfigs: () => small.httpHandlerConfigs(),
    updateHttpClientConfig: (...change: Parameters<NodeHttpHandler["updateHttpClientConfig"]>) =>
      small.updateHttpClientConfig(...change),
    destroy: () => small.destroy(),
    handle: async (request: Parameters<Handle>[0], options?: Parameters<Handle>[1]) => {
      if (!(request.body instanceof PartBody)) return await small.handle(request, options);
      const secure = request.protocol === "https:";
      const signed: SignedRequest = {
        secure,
        host: request.hostname.replace(/^\[(.*)\]$/, "$1"),
        port: request.port,
        method: request.method,
        path: `${request.path}?${queryString(request.query)}`,
        headers: request.headers,
        agent: secure ? agents.https : agents.http,
        silenceMs,
      };
      const { status, headers, body } = await request.body.send(signed);
      return { response: { statusCode: status, headers, body: Readable.from([body]) } };
    },
  };
}

function queryString(query: Readonly<Record<string, string | readonly string[] | null>> | undefined): string {
  return Object.entries(query ?? {})
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value ?? ""))}`)
    .join("&");
}
