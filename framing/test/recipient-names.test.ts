/** What a header says of those who can open the message, and what of it can be held to. */
import { createHash } from "node:crypto";
import * as age from "age-encryption";
import test from "ava";
import { FramingMachine, type FramingPolicy, MAX_RECIPIENTS, OTHER } from "../src/index.ts";
import { ANY, join, noise, outcome, packet, text } from "./support.ts";

const DATA = packet(18, join(1, noise(60, 4)));
const REST = join(1, noise(64, 2));
const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));
const to = (keyId: string) => packet(1, join(3, bytes(keyId), REST));
const PASSPHRASE = packet(3, join(4, noise(12, 3)));

function recipientsOf(message: Uint8Array, cut = message.length) {
  const machine = new FramingMachine(ANY);
  machine.push(message.subarray(0, cut));
  if (cut < message.length) machine.push(message.subarray(cut));
  return machine.recipients;
}

test("OpenPGP: key ids, hidden recipients and passphrases, wherever the stream is cut into chunks", (t) => {
  const [one, two] = ["0123456789abcdef", "fedcba9876543210"];
  const hidden = packet(1, join(6, 0, REST));
  const v4 = packet(1, join(6, 21, 4, bytes(`${"00".repeat(12)}${two}`), REST));
  const message = join(to(one), v4, to("0".repeat(16)), hidden, PASSPHRASE, to(one), DATA);
  const expected = { [`openpgp:${one}`]: 2, [`openpgp:${two}`]: 1, "openpgp:hidden": 2, "openpgp:passphrase": 1 };
  for (let cut = 0; cut <= message.length; cut += 7) t.deepEqual(recipientsOf(message, cut), expected);
});

test("nothing is said before the header is over, nor by a machine that begins later", (t) => {
  const message = join(to("0123456789abcdef"), DATA);
  const machine = new FramingMachine(ANY);
  machine.push(message.subarray(0, 20));
  t.is(machine.recipients, undefined);
  const later = new FramingMachine(ANY, machine.encodeState());
  later.push(message.subarray(20));
  t.true(later.complete);
  t.is(later.recipients, undefined);
});

test("the names are bounded: what comes after the first 64 counts together", (t) => {
  const ids = Array.from({ length: MAX_RECIPIENTS + 5 }, (_, i) => i.toString(16).padStart(16, "a"));
  const found = recipientsOf(join(...ids.map(to), DATA))!;
  t.is(Object.keys(found).length, MAX_RECIPIENTS + 1);
  t.is(found[OTHER], 5);
});

const BODY = "A".repeat(43);
const file = (...stanzas: string[]) =>
  join(
    text(`age-encryption.org/v1\n${stanzas.map((stanza) => `-> ${stanza}\n${BODY}\n`).join("")}--- ${BODY}\n`),
    noise(16, 1),
    noise(100, 2),
  );
const SHARE = "TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc";

test("age: types, tags of SSH keys and YubiKeys, and nothing of what is there to be ignored", (t) => {
  const message = file(
    `X25519 ${SHARE}`,
    `X25519 ${SHARE}`,
    `ssh-ed25519 d6F3Wg ${SHARE}`,
    "ssh-rsa wAa+/A",
    `piv-p256 Ab12+/ ${SHARE}`,
    `scrypt ${SHARE.slice(0, 22)} 18`,
    "x!-grease a b",
    `${"t".repeat(41)} x`,
    "ssh-ed25519 notatag",
    "odd§".replace("§", "%"),
  );
  t.deepEqual(recipientsOf(message), {
    "age:X25519": 2,
    "age:ssh-ed25519:d6F3Wg": 1,
    "age:ssh-rsa:wAa+/A": 1,
    "age:piv-p256:Ab12+/": 1,
    "age:scrypt": 1,
    [OTHER]: 3,
  });
});

test("age: files of the library say what they are to, armored too", async (t) => {
  const x25519 = async () => await age.identityToRecipient(await age.generateX25519Identity());
  const encrypter = new age.Encrypter();
  encrypter.addRecipient(await x25519());
  encrypter.addRecipient(await x25519());
  const made = await encrypter.encrypt(noise(1000, 1));
  t.deepEqual(recipientsOf(made), { "age:X25519": 2 });
  t.deepEqual(recipientsOf(text(age.armor.encode(made))), { "age:X25519": 2 });
  const hybrid = new age.Encrypter();
  hybrid.addRecipient(await age.identityToRecipient(await age.generateHybridIdentity()));
  t.deepEqual(recipientsOf(await hybrid.encrypt(noise(1000, 1))), { "age:mlkem768x25519": 1 });
});

test("age pinned: no more X25519 recipients than keys, SSH keys by their tags, no passphrase, nothing unknown", (t) => {
  const key = Buffer.from("AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN", "base64");
  const tag = createHash("sha256").update(key).digest().toString("base64").slice(0, 6);
  const policy: FramingPolicy = {
    formats: ["age"],
    ageRecipients: { "age:X25519": 2, [`age:ssh-ed25519:${tag}`]: 1 },
  };
  const x = `X25519 ${SHARE}`;
  const ssh = (of: string) => `ssh-ed25519 ${of} ${SHARE}`;
  for (const stanzas of [[x], [x, x], [ssh(tag)], [x, ssh(tag), x], [x, "a-grease b"]])
    t.is(outcome(file(...stanzas), policy), "accepted", stanzas.join());
  for (const stanzas of [[x, x, x], [ssh("AAAAAA")], [ssh(tag), ssh(tag)], ["scrypt AAAA 18"], [x, "mlkem768x25519 A"]])
    t.regex(outcome(file(...stanzas), policy), /^recipient-not-accepted@/, stanzas.join());
  const machine = new FramingMachine(policy);
  machine.push(file(x).subarray(0, 30));
  const within = new FramingMachine(policy, machine.encodeState());
  t.throws(() => within.push(file(x).subarray(30)), { message: /whose beginning was not seen/ });
  t.is(outcome(file("scrypt AAAA 18"), { formats: ["age"] }), "accepted", "only where keys are pinned");
});
