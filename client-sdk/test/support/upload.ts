import type { ExecutionContext } from "ava";
import type { Encryption } from "../../src/encryption/options.ts";
import type { UploadOptions } from "../../src/upload/upload.ts";
import { FakeServer, type ServerOptions } from "./server.ts";

/** The source is ciphertext already. */
export const none: Encryption = { kind: "none" };

/** A server for the length of a test. */
export async function serve(t: ExecutionContext, options: ServerOptions = {}): Promise<FakeServer> {
  const server = await FakeServer.start(options);
  t.teardown(() => server.stop());
  return server;
}

/** An upload of ciphertext, unless said otherwise. */
export function ask(source: AsyncIterable<Uint8Array>, more: Partial<UploadOptions> = {}): UploadOptions {
  return { collection: "pg", source, encryption: none, ...more };
}

/** Nothing was published, and the server was given the reason. */
export function assertAborted(t: ExecutionContext, server: FakeServer, reason: RegExp): void {
  t.is(server.versions.length, 0);
  t.is(server.aborted.length, 1);
  t.regex(server.aborted[0]!.reason, reason);
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
