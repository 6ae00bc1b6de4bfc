import type { ExecutionContext } from "ava";
import { SMTPServer } from "smtp-server";
import type { MailTarget } from "../../src/domain/notifications.ts";

/** A real SMTP server that ends with the test, what it was sent, and how to reach it. */
export async function mailServer(t: ExecutionContext, options: ConstructorParameters<typeof SMTPServer>[0] = {}) {
  const mails: { readonly from: string; readonly to: string[]; readonly text: string }[] = [];
  const logins: string[] = [];
  const server = new SMTPServer({
    disabledCommands: ["STARTTLS"],
    authOptional: true,
    onAuth(auth, _session, done) {
      logins.push(`${auth.username}:${auth.password}`);
      done(auth.password === "right" ? null : new Error("wrong"), { user: auth.username });
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        const { mailFrom, rcptTo } = session.envelope;
        const from = mailFrom === false ? "" : mailFrom.address;
        mails.push({ from, to: rcptTo.map(({ address }) => address), text: Buffer.concat(chunks).toString("utf8") });
        done();
      });
    },
    ...options,
  });
  server.on("error", () => {});
  await new Promise<void>((resolve) => server.listen(0, () => resolve()));
  t.teardown(async () => await new Promise<void>((resolve) => server.close(() => resolve())));
  const { port } = server.server.address() as { port: number };
  const target: MailTarget = {
    type: "mail",
    host: "127.0.0.1",
    port,
    implicitTls: false,
    credentials: undefined,
    from: "strongroom@example.org",
    to: ["ops@example.org", "night@example.org"],
  };
  return { mails, logins, target };
}
