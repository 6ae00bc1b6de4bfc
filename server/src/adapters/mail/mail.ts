import { isIP } from "node:net";
import { createTransport } from "nodemailer";
import type { DeliveryRow, SendOutcome } from "../../app/ports/notifications.ts";
import { addressMatches } from "../../domain/addresses.ts";
import { linesOf, type MailTarget, titleOf } from "../../domain/notifications.ts";

/** How long an attempt may take, in milliseconds. */
export interface MailLimits {
  /** Until the server was handed the mail: nothing was sent yet, so that it can be tried again without harm. */
  readonly handOverMs: number;
  /** From then on. Servers look at a mail before they take it, and who gives up too early sends it twice. */
  readonly answerMs: number;
}

/** @see https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2.6 asks for ten minutes after the end of the mail. */
const LIMITS: MailLimits = { handOverMs: 20_000, answerMs: 10 * 60_000 };
/** A connection is made, and greeted, within this, in milliseconds. */
const CONNECT_MS = 8000;

/**
 * Sends one notification by mail, over a connection of its own. The answer holds no credentials.
 * @param limits others than the usual ones, for tests.
 */
export async function sendMail(
  target: MailTarget,
  delivery: Pick<DeliveryRow, "deliveryId" | "body">,
  signal: AbortSignal,
  limits: MailLimits = LIMITS,
): Promise<SendOutcome> {
  const { host, port, implicitTls, credentials, from, to } = target;
  const isHere = host === "localhost" || (isIP(host) !== 0 && addressMatches(host, ["127.0.0.0/8", "::1"]));
  const over = new AbortController();
  const limit = AbortSignal.any([signal, over.signal]);
  let ms = limits.handOverMs;
  let timer = setTimeout(() => over.abort(), ms);
  const transport = createTransport({
    host,
    port,
    secure: implicitTls,
    // A password never crosses a network in the clear, whatever the server offers.
    requireTLS: credentials !== undefined && !isHere,
    ...(credentials === undefined ? {} : { auth: { user: credentials.user, pass: credentials.password } }),
    connectionTimeout: CONNECT_MS,
    greetingTimeout: CONNECT_MS,
    // The limits hold, and not a shorter one of the library's.
    socketTimeout: limits.handOverMs + limits.answerMs,
    dnsTimeout: CONNECT_MS,
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  transport.use("stream", (mail, done) => {
    mail.message.processFunc((message) =>
      // Read to its end is what the server asked for (354) and was given.
      message.once("end", () => {
        clearTimeout(timer);
        ms = limits.answerMs;
        timer = setTimeout(() => over.abort(), ms);
      }),
    );
    done();
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
    return { ok: false, answer: limit.aborted ? `no answer within ${ms / 1000} s` : reasonOf(error) };
  } finally {
    clearTimeout(timer);
    transport.close();
  }
}

/** Codes only: the texts of a server may repeat what was sent to it, credentials among that. */
function reasonOf(error: unknown): string {
  const { code, responseCode } = error as { code?: unknown; responseCode?: unknown };
  const answered = typeof responseCode === "number" ? `the server answered ${responseCode}` : "the sending failed";
  return typeof code === "string" ? `${answered} (${code.slice(0, 40)})` : answered;
}
