import { isIP } from "node:net";
import { createTransport } from "nodemailer";
import type { DeliveryRow, SendOutcome } from "../../app/ports/notifications.ts";
import { addressMatches } from "../../domain/addresses.ts";
import { linesOf, type MailTarget, titleOf } from "../../domain/notifications.ts";

/** An attempt takes no longer than this, in milliseconds. */
const LIMIT_MS = 20_000;
/** Each step of the conversation takes no longer than this, in milliseconds. */
const STEP_MS = 8000;

/** Sends one notification by mail, over a connection of its own. The answer holds no credentials. */
export async function sendMail(
  target: MailTarget,
  delivery: Pick<DeliveryRow, "deliveryId" | "body">,
  signal: AbortSignal,
): Promise<SendOutcome> {
  const { host, port, implicitTls, credentials, from, to } = target;
  const isHere = host === "localhost" || (isIP(host) !== 0 && addressMatches(host, ["127.0.0.0/8", "::1"]));
  const limit = AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)]);
  const transport = createTransport({
    host,
    port,
    secure: implicitTls,
    // A password never crosses a network in the clear, whatever the server offers.
    requireTLS: credentials !== undefined && !isHere,
    ...(credentials === undefined ? {} : { auth: { user: credentials.user, pass: credentials.password } }),
    connectionTimeout: STEP_MS,
    greetingTimeout: STEP_MS,
    socketTimeout: STEP_MS,
    dnsTimeout: STEP_MS,
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  try {
    const { accepted } = await transport.sendMail({
      from,
      to: [...to],
      subject: titleOf(delivery.body),
      text: [titleOf(delivery.body), "", ...linesOf(delivery.body), "", `Delivery: ${delivery.deliveryId}`].join("\n"),
      messageId: `<${delivery.deliveryId}@strongroom.invalid>`,
      headers: { "Auto-Submitted": "auto-generated", "X-Strongroom-Delivery": delivery.deliveryId },
      signal: limit,
    });
    const refused = to.length - accepted.length;
    // Those who took it would get it again and again if it were tried for the sake of the others.
    return { ok: true, answer: `the server took it${refused > 0 ? `, but not for ${refused} of ${to.length}` : ""}` };
  } catch (error) {
    return { ok: false, answer: limit.aborted ? `no answer within ${LIMIT_MS / 1000} s` : reasonOf(error) };
  } finally {
    transport.close();
  }
}

/** Codes only: the texts of a server may repeat what was sent to it, credentials among that. */
function reasonOf(error: unknown): string {
  const { code, responseCode } = error as { code?: unknown; responseCode?: unknown };
  const answered = typeof responseCode === "number" ? `the server answered ${responseCode}` : "the sending failed";
  return typeof code === "string" ? `${answered} (${code.slice(0, 40)})` : answered;
}
