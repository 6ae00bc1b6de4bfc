import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { temporaryFolder } from "@strongroom/testkit/temporary-folder";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { stringify } from "yaml";
import { ConfigFilesSource } from "../src/adapters/config-files/source.ts";
import { getObject, listObjects } from "../src/app/objects/see-objects.ts";
import type { ConfigKind } from "../src/objects/document.ts";
import { HIDDEN, hideSecrets } from "../src/objects/hide-secrets.ts";
import { principal, refused, user } from "./support/harness.ts";

const HASH = "$argon2id$v=19$m=64,t=1,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const ENCODED = Buffer.from(HASH).toString("base64");
const API = "apiVersion: backups.riotkit.org/v1alpha1";

const USERS = `# People.
---
${API}
kind: BackupUser
metadata: {name: ann} # she
spec:
  email: ann@example.org # and her address
  roles: [systemAdmin]
  # password: hunter2
  password: "${HASH}"
---
${API}
kind: BackupUser
metadata: {name: bob, namespace: people}
spec: {email: bob@example.org, roles: [], passwordFromRef: {name: passwords, entry: bob}}
`;

const SECRETS = `# hunter2 was the one before
apiVersion: v1
kind: Secret
metadata:
  name: passwords
  annotations: {note: hunter2}
type: Opaque
data:
  bob: ${ENCODED}
stringData:
  other: |
    hunter2
    # and more of hunter2
`;

async function opened(t: ExecutionContext, files: Record<string, string>): Promise<ConfigFilesSource> {
  const dir = await temporaryFolder(t);
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, file)), { recursive: true });
    await writeFile(join(dir, file), text);
  }
  return await ConfigFilesSource.open(dir);
}

const admin = principal(user("ann", { roles: ["systemAdmin"] }));
const manager = principal(user("mia", { roles: ["userManager"] }));

test("objects are listed by kind and name, in pages, with their place", async (t) => {
  const config = await opened(t, { "users.yaml": USERS, "strongroom/v1/secrets/passwords.yaml": SECRETS });
  const all = listObjects({ config }, admin, { kind: "", namespace: "", after: undefined, pageSize: 10 });
  t.deepEqual(
    all.objects.map(({ kind, name, namespace, file, line }) => [kind, name, namespace, file, line]),
    [
      ["BackupUser", "ann", "", "users.yaml", 5],
      ["BackupUser", "bob", "people", "users.yaml", 14],
      ["Secret", "passwords", "strongroom", "strongroom/v1/secrets/passwords.yaml", 5],
    ],
  );
  const first = listObjects({ config }, admin, { kind: "", namespace: "", after: undefined, pageSize: 1 });
  t.is(first.nextAfter, "BackupUser/ann");
  const rest = listObjects({ config }, admin, { kind: "", namespace: "", after: first.nextAfter, pageSize: 5 });
  t.deepEqual([...first.objects, ...rest.objects], all.objects);
  const people = listObjects({ config }, admin, { kind: "", namespace: "people", after: undefined, pageSize: 5 });
  t.deepEqual(
    people.objects.map(({ name }) => name),
    ["bob"],
  );
});

test("an object is shown as it is written, without its secrets", async (t) => {
  const config = await opened(t, { "users.yaml": USERS, "secrets.yaml": SECRETS });
  const get = async (kind: ConfigKind, name: string, format: "yaml" | "json" = "yaml") =>
    await getObject({ config }, admin, { kind, name, effective: false, format });
  const { entry, document } = await get("BackupUser", "ann");
  t.is(
    document,
    USERS.slice(USERS.indexOf(API), USERS.indexOf("---\n", 20))
      .replace(HASH, HIDDEN)
      .replace("# password: hunter2", `# ${HIDDEN}`),
  );
  t.is(entry.revision.length, 16);
  t.is(
    (JSON.parse((await get("BackupUser", "ann", "json")).document) as { spec: { password: string } }).spec.password,
    HIDDEN,
  );
  const secret = (await get("Secret", "passwords")).document;
  t.false(/hunter2|argon2|JGFy/.test(secret), secret);
  t.regex(secret, /bob: "<hidden>"\nstringData:\n {2}other: "<hidden>"\n/);
});

test("the URL of a webhook is hidden, in comments too", (t) => {
  const text = `${API}\nkind: BackupNotifier\nmetadata: {name: n}\nspec:\n  # url: https://hook/s1\n  webhook: {url: "https://hook/s2"}\n`;
  const shown = hideSecrets("BackupNotifier", text);
  t.false(/hook\//.test(shown), shown);
  t.true(shown.includes(`webhook: {url: "${HIDDEN}"}`), shown);
});

test("userManager sees users only, and nobody sees with an access key or a scope", async (t) => {
  const config = await opened(t, { "users.yaml": USERS, "secrets.yaml": SECRETS });
  const list = { kind: "", namespace: "", after: undefined, pageSize: 10 };
  t.deepEqual(
    listObjects({ config }, manager, list).objects.map(({ name }) => name),
    ["ann", "bob"],
  );
  const get = { name: "passwords", effective: false, format: "yaml" } as const;
  await refused(t, "OBJECT_NOT_FOUND", getObject({ config }, manager, { kind: "Secret", ...get }));
  const narrowed = principal(admin.user, { scope: [{ type: "collection", name: "a", roles: [] }] });
  for (const who of [narrowed, principal(admin.user, { accessKey: "k" }), principal(user("x"))]) {
    await refused(t, "ACCESS_DENIED", getObject({ config }, who, { kind: "Secret", ...get }));
    t.throws(() => listObjects({ config }, who, list), { message: /systemAdmin/ });
  }
});

test("no form of YAML shows what is hidden", (t) => {
  const secret = "hunter2secretvalue";
  const forms = fc.constantFrom(
    `x: &a ${secret}\ndata: {p: *a}`,
    `data:\n  p: >-\n    ${secret}\n    ${secret}`,
    `data: {p: "${secret}", q: ['${secret}', {r: ${secret}}]}`,
    `data: &d {p: ${secret}}\nstringData: {<<: *d}`,
    `# ${secret}\ndata: {p: ${secret}} # ${secret}\n# ${secret}`,
    `data:\n  ? p\n  : ${secret}`,
    `data: {p: !!str ${secret}}`,
    `metadata: {name: s, annotations: {a: ${secret}}}\ndata: {}`,
    `unknown: ${secret}\ndata: ["${secret}"]`,
  );
  fc.assert(
    fc.property(forms, fc.constantFrom("", "---\n", "\n\n"), (form, head) => {
      const text = `${head}apiVersion: v1\nkind: Secret\n${form}\n`;
      const shown = hideSecrets("Secret", text);
      t.false(shown.includes(secret), shown);
    }),
  );
  fc.assert(
    fc.property(
      fc.string({ maxLength: 30 }),
      fc.constantFrom("password", "token", "clientSecret"),
      fc.constantFrom("PLAIN", "QUOTE_SINGLE", "QUOTE_DOUBLE", "BLOCK_LITERAL", "BLOCK_FOLDED"),
      (more, field, type) => {
        const text = stringify({ spec: { [field]: `${secret} ${more}`, accessKeys: [{ [field]: secret }] } }, {
          defaultStringType: type,
        } as object);
        t.false(hideSecrets("BackupUser", text).includes(secret), text);
      },
    ),
  );
});
