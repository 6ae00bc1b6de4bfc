import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { DeliveryRow, SendOutcome } from "../../app/ports/notifications.ts";
import type { AddressSet } from "../../domain/addresses.ts";
import type { WebhookTarget } from "../../domain/notifications.ts";
import { AddressRefusedError, checkedAddress, type Resolve, systemResolve } from "./checked-address.ts";
import { webhookRequest } from "./forms.ts";

/** An attempt takes no longer than this, name resolution and answer included, in milliseconds. */
const LIMIT_MS = 10_000;

/** So much of an answer is read, in bytes; what comes after it is not waited for. */
const MOST_ANSWER = 4096;

/** Options of {@link sendWebhook}. */
export interface WebhookOptions {
  /** Addresses that may be called although they are no hosts of the internet. */
  readonly allowed: AddressSet;
  readonly now: () => Date;
  /** For tests. */
  readonly resolve?: Resolve | undefined;
}

/**
 * Sends one notification to a webhook: to an address that was checked, over a connection of its own, following no
 * redirect. The answer says the status, and never the URL, a header or the body.
 */
export async function sendWebhook(
  target: WebhookTarget,
  delivery: Pick<DeliveryRow, "deliveryId" | "body">,
  signal: AbortSignal,
  options: WebhookOptions,
): Promise<SendOutcome> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)]);
  try {
    const status = await raced(limit, post(target, delivery, limit, options));
    const ok = status >= 200 && status < 300;
    const redirect = status >= 300 && status < 400 ? ", and redirects are not followed" : "";
    return { ok, answer: `the receiver answered ${status}${redirect}` };
  } catch (error) {
    return { ok: false, answer: limit.aborted ? `no answer within ${LIMIT_MS / 1000} s` : reasonOf(error) };
  }
}

async function post(
  target: WebhookTarget,
  delivery: Pick<DeliveryRow, "deliveryId" | "body">,
  signal: AbortSignal,
  { allowed, now, resolve = systemResolve }: WebhookOptions,
): Promise<number> {
  const { url, body, headers } = webhookRequest(target, delivery, now());
  const parsed = new URL(url);
  const { address, family } = await checkedAddress(parsed.hostname, allowed, resolve);
  const request = parsed.protocol === "https:" ? httpsRequest : httpRequest;
  return await new Promise<number>((settle, reject) => {
    const outgoing = request(
      parsed,
      {
        method: "POST",
        headers: { ...headers, "content-length": String(Buffer.byteLength(body)) },
        agent: false,
        signal,
        maxHeaderSize: 16 * 1024,
        // Name, certificate and Host header stay those of the URL; only the address is fixed.
        lookup: (_host, { all }, done) => {
          if (all === true) done(null, [{ address, family }]);
          else done(null, address, family);
        },
      },
      (incoming) => {
        drain(incoming);
        settle(incoming.statusCode ?? 0);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

/** Reads a little of the answer, so that the receiver may end in peace, and ends the connection then. */
function drain(incoming: IncomingMessage): void {
  let read = 0;
  const end = setTimeout(() => incoming.destroy(), 1000);
  incoming.on("data", (chunk: Buffer) => {
    read += chunk.length;
    if (read > MOST_ANSWER) incoming.destroy();
  });
  incoming.on("error", () => {});
  incoming.on("close", () => clearTimeout(end));
}

/** The resolution of names cannot be broken off; it is not waited for then. */
async function raced<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  work.catch(() => {});
  let aborted: (() => void) | undefined;
  const over = new Promise<never>((_, reject) => {
    aborted = () => reject(signal.reason);
    signal.addEventListener("abort", aborted, { once: true });
    if (signal.aborted) aborted();
  });
  try {
    return await Promise.race([work, over]);
  } finally {
    if (aborted !== undefined) signal.removeEventListener("abort", aborted);
  }
}

/** Only codes: messages of other parts may repeat what they were given. */
function reasonOf(error: unknown): string {
  if (error instanceof AddressRefusedError) return `it was not called: ${error.message}`;
  const { code } = error as NodeJS.ErrnoException;
  return `the call failed: ${typeof code === "string" ? code : "for an unknown reason"}`;
}
