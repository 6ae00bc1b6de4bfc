/** Objects of kind BackupNotifier: what is read, what is refused, and that the documentation's examples are right. */
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { hasPeers } from "@strongroom/testkit/peers/programs";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import { loadConfiguration } from "../src/adapters/config-files/source.ts";
import { webhookRequest } from "../src/adapters/webhook/forms.ts";
import { NOTIFICATION_EVENTS } from "../src/domain/notifications.ts";
import { formatProblem } from "../src/objects/problem.ts";
import { BODY, webhook } from "./support/notifications.ts";

const DOCUMENT = await readFile(fileURLToPath(new URL("../../docs/notifications.md", import.meta.url)), "utf8");

async function load(t: ExecutionContext, files: Record<string, string>) {
  const dir = await temporaryFolder(t);
  for (const [file, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir, file)), { recursive: true });
    await writeFile(join(dir, file), content);
  }
  const loaded = await loadConfiguration(dir);
  const problems = loaded.problems.map(formatProblem);
  const warnings = loaded.warnings.map(formatProblem).filter((warning) => !warning.includes("no BackupUser"));
  return { ...loaded, problems, warnings };
}

const object = (spec: string) =>
  `apiVersion: backups.riotkit.org/v1alpha1\nkind: BackupNotifier\nmetadata: {name: ops}\nspec: ${spec}\n`;

const SECRETS =
  "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n" +
  `data: {key: "${Buffer.from("0123456789abcdef\n").toString("base64")}", raw: not-base64!, url: "https://a.example/x"}\n` +
  'stringData: {key2: whsec_MDEyMzQ1Njc4OWFiY2RlZg==, short: abc, token: tk_1, lines: "a\\nb"}\n';

test("every field", async (t) => {
  const { configuration, problems, warnings } = await load(t, {
    "a.yaml": object(
      "{repeat: 6h, recovery: false, events: [missing, failed, missing], description: x, webhook: {form: ntfy, " +
        "url: 'https://ntfy.sh/topic', tokenRef: {name: s, entry: token}}}",
    ),
    "b.yaml": object(
      "{mail: {server: 'smtp://[::1]:2525', user: u, passwordRef: {name: s, entry: key}, from: a@b.example, to: [c@d.example]}}",
    ).replace("ops", "mail"),
    "c.yaml": object("{webhook: {urlRef: {name: s, entry: url}, secretRef: {name: s, entry: key2}}}").replace(
      "ops",
      "json",
    ),
    "s.yaml": SECRETS,
  });
  t.deepEqual([problems, warnings], [[], []]);
  t.deepEqual(configuration.notifiers!.get("ops"), {
    name: "ops",
    collections: undefined,
    organizations: undefined,
    events: ["missing", "failed"],
    repeatMs: 6 * 3_600_000,
    recovery: false,
    target: { type: "webhook", url: "https://ntfy.sh/topic", form: "ntfy", secret: undefined, token: "tk_1" },
  });
  t.like(configuration.notifiers!.get("json"), { events: NOTIFICATION_EVENTS, recovery: true, repeatMs: undefined });
  t.like(configuration.notifiers!.get("json")!.target, {
    url: "https://a.example/x",
    secret: "whsec_MDEyMzQ1Njc4OWFiY2RlZg==",
  });
  t.deepEqual(configuration.notifiers!.get("mail")!.target, {
    type: "mail",
    host: "::1",
    port: 2525,
    implicitTls: false,
    credentials: { user: "u", password: "0123456789abcdef" },
    from: "a@b.example",
    to: ["c@d.example"],
  });
});

const WRONG: readonly (readonly [spec: string, problem: RegExp])[] = [
  ["{}", /spec: expected either webhook or mail, got none/],
  ["{webhook: {url: 'https://a.example/'}, mail: {}}", /spec: expected either webhook or mail, got both/],
  ["{webhook: {}}", /spec\.webhook: expected either url or urlRef, got none/],
  ["{webhook: {url: 'ftp://s3cret.example/'}}", /spec\.webhook\.url: expected a URL .*\(not shown\)/],
  ["{webhook: {url: 'https://user:s3cret@a.example/'}}", /got one with a user or password \(not shown\)/],
  ["{webhook: {url: 'https://a.example/', form: slak}}", /spec\.webhook\.form: .*got "slak"; did you mean "slack"\?/],
  ["{webhook: {url: 'https://ntfy.sh/', form: ntfy}}", /expected a URL that ends with the topic/],
  ["{webhook: {url: 'https://a.example/', secretRef: {name: s, entry: short}}}", /s\.yaml.*expected a secret of 16 to/],
  ["{webhook: {url: 'https://a.example/', secretRef: {name: s, entry: raw}}}", /expected base64 under data/],
  ["{webhook: {url: 'https://a.example/', tokenRef: {name: s, entry: lines}}}", /expected 1 to 2048 printable ASCII/],
  ["{webhook: {url: 'https://a.example/'}, events: [mising]}", /spec\.events\[0\]: .*did you mean "missing"\?/],
  ["{webhook: {url: 'https://a.example/'}, events: []}", /expected at least one event/],
  ["{webhook: {url: 'https://a.example/'}, repeat: 30s}", /spec\.repeat: expected a duration of at least 1m/],
  ["{webhook: {url: 'https://a.example/'}, recovery: 1}", /spec\.recovery: expected true or false/],
  ["{mail: {server: 'smtp://u:s3cret@a.example', from: a@b.example, to: [a@b.example]}}", /use user and passwordRef/],
  ["{mail: {server: 'https://a.example', from: a@b.example, to: [a@b.example]}}", /expected a URL such as smtps:/],
  ["{mail: {server: 'smtps://a.example', from: 'Ops <a@b.example>', to: [a@b.example]}}", /expected a mail address/],
  [
    '{mail: {server: "smtps://a.example", from: "a@b.example", to: ["a@b.example\\r\\nBcc: c@d"]}}',
    /expected a mail address/,
  ],
  ["{mail: {server: 'smtps://a.example', from: a@b.example, to: []}}", /expected 1 to 20 addresses, got 0/],
  [
    "{mail: {server: 'smtps://a.example', user: u, from: a@b.example, to: [a@b.example]}}",
    /user and passwordRef together/,
  ],
];

test("what is wrong is reported with its place, and no secret is shown", async (t) => {
  for (const [spec, problem] of WRONG) {
    const { problems, configuration } = await load(t, { "a.yaml": object(spec), "s.yaml": SECRETS });
    t.true(
      problems.some((each) => problem.test(each)),
      `${spec}: ${problems.join("; ")}`,
    );
    t.notRegex(problems.join(), /s3cret|not-base64/);
    t.is(configuration.notifiers!.size, 0, spec);
  }
});

test("names of collections that are not there, and secrets over http, are warned of", async (t) => {
  const { problems, warnings } = await load(t, {
    "a.yaml": object("{collections: [nothing], webhook: {url: 'http://a.example/', secretRef: {name: s, entry: key}}}"),
    "s.yaml": SECRETS,
  });
  t.deepEqual(problems, []);
  t.regex(warnings.join("\n"), /nothing", which is not there, so nothing is told of it/);
  t.regex(warnings.join("\n"), /the URL is http/);
});

const blocks = (language: string) =>
  [...DOCUMENT.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter(([, kind]) => kind === language)
    .map(([, , text]) => text!);

test("the documentation: each example is valid, and each event is in the table", async (t) => {
  const examples = blocks("yaml");
  t.is(examples.length, 5);
  for (const example of examples) {
    const { problems, warnings, configuration } = await load(t, { "a.yaml": example });
    t.deepEqual([problems, warnings, configuration.notifiers!.size], [[], [], 1], example);
  }
  for (const event of NOTIFICATION_EVENTS) t.true(DOCUMENT.includes(`\`${event}\``), event);
  const [json] = blocks("json");
  t.deepEqual(Object.keys(JSON.parse(json!)), [...Object.keys(BODY), "delivery_id"]);
});

test("the documentation: its function verifies what is sent, and nothing else", async (t) => {
  if (!hasPeers(t, "python3")) return;
  const [code] = blocks("python");
  const deliveryId = "8e315d9a-0f28-469f-b060-f8fd2e823b3c";
  for (const secret of ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "just a text of some length"]) {
    const { headers, body } = webhookRequest(
      webhook("https://a.example/", { secret }),
      { deliveryId, body: BODY },
      new Date(1000),
    );
    const checks = [
      [secret, headers, body, 100],
      [secret, headers, `${body} `, 100],
      [secret, { ...headers, "webhook-timestamp": "2" }, body, 100],
      [`${secret}BBBB`, headers, body, 100],
      [secret, headers, body, 1000],
    ];
    const program = `${code}\nimport json, sys\nprint([is_genuine(s, h, b.encode(), n) for s, h, b, n in json.loads(sys.argv[1])])`;
    const { stdout } = await promisify(execFile)("python3", ["-c", program, JSON.stringify(checks)]);
    t.is(stdout.trim(), "[True, False, False, False, False]");
  }
});
