/** What tests of notifications share. */
import type { ExecutionContext } from "ava";
import {
  NOTIFICATION_EVENTS,
  type Notification,
  type NotifierSpec,
  type WebhookTarget,
} from "../../src/domain/notifications.ts";
import { WebhookReceiver } from "./webhook-receivers.ts";

/** A notification. */
export const BODY: Notification = {
  version: 1,
  event: "missing",
  status: "firing",
  severity: "failed",
  collection: "pg-main",
  organization: "",
  since: "2026-01-01T03:00:00.000Z",
  at: "2026-01-01T03:00:00.000Z",
  message: "expected a version; there is none",
  what_to_do: "make one",
  facts: { version: "4" },
};

/** A target. */
export function webhook(url: string, change: Partial<WebhookTarget> = {}): WebhookTarget {
  return { type: "webhook", url, form: "json", secret: undefined, token: undefined, ...change };
}

/** Starts a receiver that ends with the test. */
export async function receiver(t: ExecutionContext, mode: string): Promise<WebhookReceiver> {
  const started = await WebhookReceiver.start(mode);
  t.teardown(async () => await started.stop());
  return started;
}

/** A notifier that is told everything. */
export function notifier(name: string, change: Partial<NotifierSpec> = {}): NotifierSpec {
  return {
    name,
    collections: undefined,
    organizations: undefined,
    events: NOTIFICATION_EVENTS,
    repeatMs: undefined,
    recovery: true,
    target: webhook("https://example.org/"),
    ...change,
  };
}
