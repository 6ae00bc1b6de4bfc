import { createHmac } from "node:crypto";
import type { DeliveryRow } from "../../app/ports/notifications.ts";
import { linesOf, titleOf, type WebhookTarget } from "../../domain/notifications.ts";

/** What is sent to a webhook. */
export interface WebhookRequest {
  readonly url: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Slack's messages end before this. */
const MOST_SLACK = 3000;
const MOST_TITLE = 250;

/** Puts a notification into the form that the receiver reads, and signs it. */
export function webhookRequest(
  target: WebhookTarget,
  delivery: Pick<DeliveryRow, "deliveryId" | "body">,
  now: Date,
): WebhookRequest {
  const { url, body, type } = formOf(target, delivery);
  const timestamp = String(Math.floor(now.getTime() / 1000));
  const headers: Record<string, string> = {
    "content-type": type,
    "user-agent": "Strongroom",
    "webhook-id": delivery.deliveryId,
    "webhook-timestamp": timestamp,
  };
  if (target.token !== undefined) headers.authorization = `Bearer ${target.token}`;
  if (target.secret !== undefined)
    headers["webhook-signature"] = `v1,${signature(target.secret, `${delivery.deliveryId}.${timestamp}.${body}`)}`;
  return { url, body, headers };
}

/**
 * HMAC-SHA256 in base64, as Standard Webhooks has it.
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
function signature(secret: string, signed: string): string {
  const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
  return createHmac("sha256", key).update(signed).digest("base64");
}

const JSON_TYPE = "application/json; charset=utf-8";

function formOf(
  { form, url }: WebhookTarget,
  { deliveryId, body }: Pick<DeliveryRow, "deliveryId" | "body">,
): { readonly url: string; readonly body: string; readonly type: string } {
  const title = titleOf(body).slice(0, MOST_TITLE);
  const lines = linesOf(body);
  switch (form) {
    case "json":
      return { url, body: JSON.stringify({ ...body, delivery_id: deliveryId }), type: JSON_TYPE };
    case "slack": {
      // Only these three characters begin markup that does something (links, mentions), as Slack documents it.
      const text = [title, ...lines]
        .join("\n")
        .slice(0, MOST_SLACK)
        .toWellFormed()
        .replaceAll("&", "&amp;")
        .replaceAll("<", "&lt;")
        .replaceAll(">", "&gt;");
      return { url, body: JSON.stringify({ text, mrkdwn: false, unfurl_links: false }), type: JSON_TYPE };
    }
    case "ntfy": {
      // As JSON, so that no text becomes a header; that is posted to the server's root, with the topic in it.
      const address = new URL(url);
      const at = address.pathname.lastIndexOf("/");
      const topic = address.pathname.slice(at + 1);
      address.pathname = address.pathname.slice(0, at + 1);
      const priority = body.severity === "failed" ? 5 : body.severity === "warning" ? 4 : 3;
      const tags = [body.severity === "ok" ? "white_check_mark" : "warning"];
      const message = { topic, title, message: lines.join("\n").slice(0, MOST_SLACK).toWellFormed(), priority, tags };
      return { url: address.href, body: JSON.stringify(message), type: JSON_TYPE };
    }
    case "ping": {
      const address = new URL(url);
      const isWrong = body.severity !== "ok";
      if (isWrong) address.pathname = `${address.pathname.replace(/\/$/, "")}/fail`;
      return { url: address.href, body: [title, ...lines].join("\n"), type: "text/plain; charset=utf-8" };
    }
  }
}
