/** Notifications of hostile names and texts: nothing ends a header, begins markup, or breaks the JSON. */
import test from "ava";
import fc from "fast-check";
import { sendMail } from "../src/adapters/mail/mail.ts";
import { webhookRequest } from "../src/adapters/webhook/forms.ts";
import { type Notification, notificationOf, titleOf } from "../src/domain/notifications.ts";
import { mailServer } from "./support/mail-server.ts";
import { webhook } from "./support/notifications.ts";

const PIECES = [
  "\r\nBcc: victim@example.org\r\n",
  "\n.\nMAIL FROM:<a@b>",
  "<!channel>",
  "<https://evil.example|click>",
  '"}],"text":"x',
  "=?utf-8?q?=0aBcc:_x?=",
  "\u0000\u0085\u2028\u2029",
  "\ud800",
  "${jndi:ldap://x}",
  "&lt;",
  "../..",
];

/** Names can only come from the configuration, and reasons of failures from whoever uploads; both are hostile here. */
const hostile = fc
  .array(fc.oneof(fc.constantFrom(...PIECES), fc.string({ unit: "binary", maxLength: 30 })), { maxLength: 8 })
  .map((parts) => parts.join(""));

const notifications: fc.Arbitrary<Notification> = fc
  .record({
    message: fc.oneof(
      hostile,
      hostile.map((text) => text.padEnd(5000, "ä<")),
    ),
    collection: hostile,
    organization: hostile,
    fact: hostile,
    status: fc.constantFrom("firing" as const, "resolved" as const),
  })
  .map(({ message, collection, organization, fact, status }) =>
    notificationOf(
      { event: "failed", severity: "failed", since: undefined, message, whatToDo: message, facts: { [fact]: message } },
      status,
      { collection, organization },
      { since: new Date(0), at: new Date(0) },
    ),
  );

const DELIVERY = "2cb7ae16-0000-4000-8000-000000000001";

test("webhooks", (t) => {
  fc.assert(
    fc.property(notifications, (body) => {
      const of = (form: "json" | "slack" | "ntfy" | "ping") =>
        webhookRequest(
          webhook("https://example.org/topic", { form, secret: "s".repeat(20) }),
          { deliveryId: DELIVERY, body },
          new Date(0),
        );
      for (const form of ["json", "slack", "ntfy", "ping"] as const) {
        const { headers, body: text, url } = of(form);
        for (const value of Object.values(headers)) t.regex(value, /^[\x20-\x7e]+$/);
        t.true(new URL(url).href === url && url.startsWith("https://example.org/"));
        t.true(text.length < 40_000 && Buffer.from(text).toString("utf8") === text);
      }
      const json = JSON.parse(of("json").body);
      t.like(json, { event: "failed", delivery_id: DELIVERY, version: 1 });
      const slack = JSON.parse(of("slack").body);
      t.deepEqual(Object.keys(slack), ["text", "mrkdwn", "unfurl_links"]);
      t.notRegex(slack.text, /[<>]|&(?!amp;|lt;|gt;)/);
      t.deepEqual(Object.keys(JSON.parse(of("ntfy").body)), ["topic", "title", "message", "priority", "tags"]);
      t.notRegex(titleOf(body), /\p{Cc}/u);
    }),
    { numRuns: 500 },
  );
});

test("mail", async (t) => {
  const { mails, target } = await mailServer(t);
  await fc.assert(
    fc.asyncProperty(notifications, async (body) => {
      mails.length = 0;
      const sent = await sendMail(target, { deliveryId: DELIVERY, body }, new AbortController().signal);
      t.true(sent.ok, sent.answer);
      t.is(mails.length, 1);
      const { from, to, text } = mails[0]!;
      t.is(from, target.from);
      t.deepEqual(to, target.to as string[]);
      const header = text.slice(0, text.indexOf("\r\n\r\n"));
      const names = header
        .replaceAll(/\r\n[ \t]+/g, " ")
        .split("\r\n")
        .map((line) => line.slice(0, line.indexOf(":")));
      t.deepEqual(names.sort(), [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "MIME-Version",
        "Message-ID",
        "Subject",
        "To",
        "X-Strongroom-Delivery",
      ]);
    }),
    { numRuns: 60 },
  );
});
