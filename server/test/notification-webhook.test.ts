/** What is sent to webhooks, and to which addresses: to a real receiver over HTTP. */
import { createHmac, randomUUID } from "node:crypto";
import test from "ava";
import { checkedAddress } from "../src/adapters/webhook/checked-address.ts";
import { sendWebhook } from "../src/adapters/webhook/webhook.ts";
import { testNotifier } from "../src/app/notifications/test-notifier.ts";
import { AddressSet } from "../src/domain/addresses.ts";
import type { WebhookTarget } from "../src/domain/notifications.ts";
import { notificationSender } from "../src/main.ts";
import { principal, refused, user } from "./support/harness.ts";
import { BODY, notifier, receiver, webhook } from "./support/notifications.ts";

const HERE = new AddressSet(["127.0.0.1", "::1"]);
const NOW = new Date("2026-01-01T03:00:00Z");

const send = async (target: WebhookTarget, body = BODY, deliveryId: string = randomUUID()) =>
  await sendWebhook(target, { deliveryId, body }, new AbortController().signal, { allowed: HERE, now: () => NOW });

test("a webhook is signed over its id, its time and its body, and shows no secret in its answer", async (t) => {
  const to = await receiver(t, "ok");
  const secret = "a secret of some length";
  const deliveryId = randomUUID();
  const sent = await send(webhook(`${to.url}?key=of-the-url`, { secret, token: "the-token" }), BODY, deliveryId);
  t.deepEqual(sent, { ok: true, answer: "the receiver answered 200" });
  const { headers, body, method, path } = (await to.first(1))[0]!;
  t.is(method, "POST");
  t.is(path, "/hook?key=of-the-url");
  t.deepEqual(JSON.parse(body), { ...BODY, delivery_id: deliveryId });
  t.is(headers["webhook-id"], deliveryId);
  t.is(headers["webhook-timestamp"], String(NOW.getTime() / 1000));
  t.is(headers.authorization, "Bearer the-token");
  const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
  t.is(headers["webhook-signature"], `v1,${createHmac("sha256", secret).update(signed).digest("base64")}`);
  const standard = `whsec_${Buffer.from(secret).toString("base64")}`;
  await send(webhook(to.url, { secret: standard }), BODY, deliveryId);
  t.is(
    (await to.first(2))[1]!.headers["webhook-signature"],
    headers["webhook-signature"],
    "the same key, written as usual",
  );
});

test("the forms of Slack, ntfy and pings", async (t) => {
  const to = await receiver(t, "ok");
  await send(webhook(to.url, { form: "slack" }));
  await send(webhook(to.url, { form: "ntfy" }));
  await send(webhook(to.url, { form: "ping" }));
  await send(webhook(to.url, { form: "ping" }), { ...BODY, event: "heartbeat", status: "ok", severity: "ok" });
  const [slack, ntfy, fail, ok] = await to.first(4);
  t.deepEqual(Object.keys(JSON.parse(slack!.body)), ["text", "mrkdwn", "unfurl_links"]);
  t.regex(JSON.parse(slack!.body).text, /^pg-main: backup missing\n/);
  t.is(ntfy!.path, "/");
  t.like(JSON.parse(ntfy!.body), { topic: "hook", title: "pg-main: backup missing", priority: 5 });
  t.deepEqual([fail!.path, ok!.path], ["/hook/fail", "/hook"]);
});

test("failures: refusals, redirects, resets; an endless answer is not read to its end", async (t) => {
  const to = await receiver(t, "fail");
  t.deepEqual(await send(webhook(to.url)), { ok: false, answer: "the receiver answered 500" });
  to.mode("moved");
  t.deepEqual(await send(webhook(to.url)), {
    ok: false,
    answer: "the receiver answered 302, and redirects are not followed",
  });
  to.mode("reset");
  t.deepEqual(await send(webhook(to.url)), { ok: false, answer: "the call failed: ECONNRESET" });
  to.mode("endless");
  t.deepEqual(await send(webhook(to.url)), { ok: true, answer: "the receiver answered 200" });
  t.false(to.received.some(({ path }) => path === "/moved"));
  await to.stop();
  t.deepEqual(await send(webhook(to.url)), { ok: false, answer: "the call failed: ECONNREFUSED" });
  t.regex((await send(webhook("https://user-of-a-name.invalid/s3cret"))).answer, /^the call failed: E[A-Z_]+$/);
});

test("no webhook goes to addresses of this machine, private and special ranges, in whatever form", async (t) => {
  const none = new AddressSet([]);
  const forms = [
    "127.0.0.1 127.1 0x7f000001 2130706433 017700000001 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254",
    "100.64.0.1 100.100.100.200 168.63.129.16 192.0.0.192 198.18.0.1 224.0.0.1 255.255.255.255 240.0.0.1",
    "[::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:a9fe:a9fe] [::127.0.0.1] [64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1] [2002:a9fe:a9fe::1] [2001::1] [fe80::1] [fc00::1] [fd00:ec2::254] [fec0::1] [ff02::1]",
  ];
  for (const host of forms.join(" ").split(" ")) {
    const { hostname } = new URL(`http://${host}/`);
    await t.throwsAsync(checkedAddress(hostname, none), { name: "AddressRefusedError" }, host);
    const named = async () => [{ address: hostname.replace(/[[\]]/g, ""), family: 0 }];
    await t.throwsAsync(checkedAddress("a.example.org", none, named), { name: "AddressRefusedError" }, host);
    const second = async () => [{ address: "8.8.8.8", family: 4 }, ...(await named())];
    await t.throwsAsync(checkedAddress("a.example.org", none, second), { name: "AddressRefusedError" }, host);
  }
  for (const host of ["8.8.8.8", "[2606:4700::1111]", "[::ffff:8.8.8.8]"])
    t.truthy(await checkedAddress(new URL(`http://${host}/`).hostname, none), host);
  const allowed = new AddressSet(["10.0.0.0/8"]);
  t.deepEqual(await checkedAddress("[::ffff:10.0.0.1]", allowed), { address: "10.0.0.1", family: 4 });
  await t.throwsAsync(checkedAddress("192.168.0.1", allowed));
  const to = await receiver(t, "ok");
  const refused = await sendWebhook(webhook(to.url), { deliveryId: randomUUID(), body: BODY }, AbortSignal.abort(), {
    allowed: none,
    now: () => NOW,
  });
  t.false(refused.ok);
  t.deepEqual(to.received, []);
});

test("the address that was checked is called, whatever the name server says next", async (t) => {
  const to = await receiver(t, "ok");
  const answers = ["127.0.0.1", "127.0.0.2"];
  let asked = 0;
  const resolve = async () => [{ address: answers[asked++]!, family: 4 }];
  const target = webhook(`http://hook.example.org:${to.port}/hook`);
  const options = { allowed: HERE, now: () => NOW, resolve };
  const { ok } = await sendWebhook(
    target,
    { deliveryId: randomUUID(), body: BODY },
    new AbortController().signal,
    options,
  );
  t.true(ok);
  t.is(asked, 1, "nobody asks again between the check and the call");
  t.is((await to.first(1))[0]!.headers.host, `hook.example.org:${to.port}`);
});

test("an administrator tests a notifier, and nobody else", async (t) => {
  const to = await receiver(t, "ok");
  const notifiers = new Map([["ops", notifier("ops", { target: webhook(to.url) })]]);
  const current = () => ({ users: new Map(), collections: new Map(), organizations: new Map(), notifiers });
  const deps = { config: { current }, newId: randomUUID, sender: notificationSender(["127.0.0.1"]) };
  const { signal } = new AbortController();
  const admin = user("admin", { roles: ["systemAdmin"] });
  t.deepEqual(await testNotifier(deps, principal(admin), { name: "ops", signal }), {
    ok: true,
    answer: "the receiver answered 200",
  });
  t.like(JSON.parse((await to.first(1))[0]!.body), { event: "test", status: "test", severity: "ok" });
  to.mode("fail");
  t.false((await testNotifier(deps, principal(admin), { name: "ops", signal })).ok);
  await refused(t, "OBJECT_NOT_FOUND", testNotifier(deps, principal(admin), { name: "nobody", signal }));
  const manager = principal(user("ann", { roles: ["userManager", "collectionManager"] }));
  await refused(t, "ACCESS_DENIED", testNotifier(deps, manager, { name: "ops", signal }));
  await refused(t, "ACCESS_DENIED", testNotifier(deps, principal(admin, { accessKey: "k" }), { name: "ops", signal }));
});
