/** Receivers that take a notification after minutes: on PGlite and on a PostgreSQL server. */
import { randomUUID } from "node:crypto";
import test, { type TestFn } from "ava";
import { sql } from "drizzle-orm";
import { sendMail } from "../src/adapters/mail/mail.ts";
import type { SqlDatabase } from "../src/adapters/postgres/database.ts";
import { Notifications } from "../src/app/notifications/notifications.ts";
import { testNotifier } from "../src/app/notifications/test-notifier.ts";
import type { NotificationSender } from "../src/app/ports/notifications.ts";
import { abortUpload } from "../src/app/uploads/manage-uploads.ts";
import { type Harness, harnessTest } from "./support/harness.ts";
import { mailServer } from "./support/mail-server.ts";
import { notifier } from "./support/notifications.ts";
import { until } from "./support/webhook-receivers.ts";

const onEach = harnessTest(test as TestFn<{ h: Harness }>, { fresh: true });

const configOf = (h: Harness, ops = notifier("ops")) => ({
  current: () => ({ ...h.deps.config.current(), notifiers: new Map([["ops", ops]]) }),
});

onEach("one server goes on sending for as long as the receiver takes, and no other sends the same", async (t) => {
  const { h } = t.context;
  const { name } = h.add({});
  const taken = Promise.withResolvers<void>();
  const sent: string[] = [];
  const server = () => {
    const sender: NotificationSender = {
      async send(_, { deliveryId }) {
        sent.push(deliveryId);
        await taken.promise;
        return { ok: true, answer: "" };
      },
    };
    const ports = { config: configOf(h), sender, newId: randomUUID, random: () => 0.5, signals: [], renewMs: 5 };
    return new Notifications({ ...h.deps, ...ports, serverId: randomUUID() });
  };
  const [one, two] = [server(), server()];
  await one.review();
  const { upload } = await h.begin(name);
  await abortUpload(h.deps, h.admin, { uploadId: upload.id, reason: "the dump failed" });
  await one.review();
  const sending = one.deliver();
  await until(() => sent.length === 1);
  const leasedUntil = async () => {
    const rows = await (h.deps.database as SqlDatabase).query(sql`select leased_until::text from notification_outbox`);
    return JSON.stringify(rows);
  };
  for (let minutes = 0; minutes < 9; minutes += 1) {
    for (let part = 0; part < 3; part += 1) {
      const before = await leasedUntil();
      h.clock.advance(20_000);
      await until(async () => (await leasedUntil()) !== before);
    }
    await two.deliver();
    t.is(sent.length, 1, `${minutes + 1} minutes`);
  }
  taken.resolve();
  await sending;
  await two.deliver();
  t.is(sent.length, 1);
  t.is((await one.figures())[0]!.queued, 0);
});

onEach("a test waits less than what is due for a server that does not say whether it took a mail", async (t) => {
  const { h } = t.context;
  const { target } = await mailServer(t, { onData: (stream) => void stream.resume() });
  const sender: NotificationSender = {
    send: async (_, delivery, signal) => await sendMail(target, delivery, signal),
  };
  const deps = { config: configOf(h, notifier("ops", { target })), sender, newId: randomUUID, notifierTestMs: 200 };
  t.deepEqual(await testNotifier(deps, h.admin, { name: "ops", signal: new AbortController().signal }), {
    ok: false,
    answer: "no answer within 0.2 s; the test may have arrived, and others are waited for longer",
  });
});
