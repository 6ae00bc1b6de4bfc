/** Notifications by mail: to a real SMTP server. */
import { lookup } from "node:dns/promises";
import { hostname } from "node:os";
import test from "ava";
import { type MailLimits, sendMail } from "../src/adapters/mail/mail.ts";
import type { MailTarget } from "../src/domain/notifications.ts";
import { mailServer } from "./support/mail-server.ts";
import { BODY } from "./support/notifications.ts";

const mail = async (
  target: MailTarget,
  body = BODY,
  signal = new AbortController().signal,
  ...limits: readonly MailLimits[]
) => await sendMail(target, { deliveryId: "2cb7ae16-0000-4000-8000-000000000001", body }, signal, ...limits);

test("mail arrives, with credentials, and a refusal shows none of them", async (t) => {
  const { mails, logins, target } = await mailServer(t, { disabledCommands: ["STARTTLS"], authOptional: false });
  const credentials = { user: "strongroom", password: "right" };
  t.deepEqual(await mail({ ...target, credentials }), { ok: true, answer: "the server took it" });
  t.is(mails.length, 1);
  t.deepEqual(mails[0]!.to, target.to as string[]);
  t.regex(mails[0]!.text, /^Subject: pg-main: backup missing\r$/m);
  t.regex(mails[0]!.text, /^Message-ID: <2cb7ae16-0000-4000-8000-000000000001@strongroom\.invalid>\r$/m);
  t.regex(mails[0]!.text, /^Auto-Submitted: auto-generated\r$/m);
  const wrong = await mail({ ...target, credentials: { user: "strongroom", password: "wr0ng-secret" } });
  t.deepEqual(wrong, { ok: false, answer: "the server answered 535 (EAUTH)" });
  t.deepEqual(logins, ["strongroom:right", "strongroom:wr0ng-secret"]);
});

test("no password goes to another machine without TLS, though the server takes it", async (t) => {
  const name = hostname();
  const known = await lookup(name).catch(() => undefined);
  if (known === undefined) return t.log("SKIPPED: the name of this machine has no address");
  const { logins, target } = await mailServer(t);
  const sent = await mail({ ...target, host: name, credentials: { user: "strongroom", password: "right" } });
  t.false(sent.ok);
  t.deepEqual(logins, []);
});

test("an SMTP server that refuses a mail, and one that never says a word", async (t) => {
  const refusing = await mailServer(t, {
    disabledCommands: ["STARTTLS"],
    authOptional: true,
    onRcptTo: (_address, _session, done) => done(new Error("go away, s3cret")),
  });
  t.regex((await mail(refusing.target)).answer, /^the server answered 5\d\d \(E[A-Z]+\)$/);
  const silent = await mailServer(t, { authOptional: true, onConnect: () => {} });
  const breakOff = new AbortController();
  const waiting = mail(silent.target, BODY, breakOff.signal);
  breakOff.abort();
  t.false((await waiting).ok);
});

test("a server that looks at a mail for longer than at anything else takes it once", async (t) => {
  const { mails, target } = await mailServer(t, {
    onData(stream, _session, done) {
      stream.resume().on("end", () => setTimeout(done, 4500));
    },
  });
  const limits = { handOverMs: 4000, answerMs: 600_000 };
  t.deepEqual(await mail(target, BODY, undefined, limits), { ok: true, answer: "the server took it" });
  t.deepEqual(mails, []);
});

test("a server that is silent before it was handed the mail, and one after that, are each given up in time", async (t) => {
  const before = await mailServer(t, { onRcptTo: () => {} });
  const early = await mail(before.target, BODY, undefined, { handOverMs: 200, answerMs: 600_000 });
  t.deepEqual(early, { ok: false, answer: "no answer within 0.2 s" });
  const after = await mailServer(t, { onData: (stream) => void stream.resume() });
  const late = await mail(after.target, BODY, undefined, { handOverMs: 600_000, answerMs: 300 });
  t.deepEqual(late, { ok: false, answer: "no answer within 0.3 s" });
});
