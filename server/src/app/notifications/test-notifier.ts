import { hasSystemRole, type Principal } from "../../domain/access.ts";
import { DomainError } from "../../domain/errors.ts";
import { NOTIFICATION_VERSION } from "../../domain/notifications.ts";
import type { ConfigSource } from "../ports/config-source.ts";
import type { NotificationSender, SendOutcome } from "../ports/notifications.ts";

/** Nobody waits longer for a test, in milliseconds; a mail server may take minutes to say that it took one. */
const TEST_MS = 30_000;

/** What tests of notifiers need. */
export interface TestNotifierDeps {
  readonly config: ConfigSource;
  readonly newId: () => string;
  /** Undefined where this server sends nothing. */
  readonly sender?: NotificationSender | undefined;
  /** In milliseconds; half a minute when left out. */
  readonly notifierTestMs?: number | undefined;
}

/** Sends a test to one notifier, past the outbox, and says how that ended. For systemAdmin. */
export async function testNotifier(
  deps: TestNotifierDeps,
  principal: Principal,
  input: { readonly name: string; readonly signal: AbortSignal },
): Promise<SendOutcome> {
  if (!hasSystemRole(principal, "systemAdmin"))
    throw new DomainError(
      "ACCESS_DENIED",
      "notifiers are tested by systemAdmin, in a session without access key and scope",
      {
        metadata: { action: "administer" },
      },
    );
  const notifier = deps.config.current().notifiers?.get(input.name);
  if (notifier === undefined)
    throw new DomainError(
      "OBJECT_NOT_FOUND",
      "there is no BackupNotifier of this name in force; ListObjects lists them",
      {
        metadata: { kind: "BackupNotifier", name: input.name },
      },
    );
  if (deps.sender === undefined) return { ok: false, answer: "this server sends no notifications" };
  const at = new Date().toISOString();
  const body = {
    version: NOTIFICATION_VERSION,
    event: "test",
    status: "test",
    severity: "ok",
    collection: "",
    organization: "",
    since: at,
    at,
    message: "this is a test that an administrator asked for; nothing is wrong",
    what_to_do: "",
    facts: {},
  } as const;
  const { notifierTestMs = TEST_MS } = deps;
  const limit = AbortSignal.timeout(notifierTestMs);
  const signal = AbortSignal.any([input.signal, limit]);
  const outcome = await deps.sender.send(notifier, { deliveryId: deps.newId(), body }, signal);
  if (outcome.ok || !limit.aborted) return outcome;
  const waited = `no answer within ${notifierTestMs / 1000} s`;
  return { ok: false, answer: `${waited}; the test may have arrived, and others are waited for longer` };
}
