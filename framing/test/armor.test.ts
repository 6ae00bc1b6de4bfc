import test from "ava";
import { FramingMachine } from "../src/index.ts";
import {
  ANY,
  ageArmor,
  ageHeader,
  join,
  noise,
  outcome,
  packet,
  pgpArmor,
  stanza,
  text,
  violation,
} from "./support.ts";

const MESSAGE = join(packet(1, join(3, noise(100, 1))), packet(18, join(1, noise(149, 2))));
const AGE = join(ageHeader([stanza(["X25519", "abc"], noise(32, 1))]), noise(16 + 100, 2));
const armored = (change: (armor: string) => string, stream = pgpArmor(MESSAGE)) =>
  text(change(Buffer.from(stream).toString("latin1")));
const BEGIN = "-----BEGIN PGP MESSAGE-----";
const END = "-----END PGP MESSAGE-----";

test("OpenPGP armor in its usual shapes is accepted", (t) => {
  t.is(MESSAGE.length % 3, 0);
  for (const tail of [0, 1, 2]) {
    const message = join(MESSAGE.subarray(0, 103), packet(18, join(1, noise(149 + tail, 2))));
    t.is(violation(pgpArmor(message)), "accepted", `${tail} bytes in the last group`);
    t.is(violation(pgpArmor(message, { end: "\r\n", after: "\r\n" })), "accepted");
    t.is(violation(pgpArmor(message, { checksum: undefined, after: "" })), "accepted");
    t.is(violation(pgpArmor(message, { columns: 76, headers: ["Version: x", "Comment: y"] })), "accepted");
    t.is(violation(pgpArmor(message, { columns: 7 })), "accepted");
  }
  t.is(violation(armored((a) => a.replace(`${BEGIN}\n\n`, `${BEGIN} \t\n \t\n`))), "accepted", "white space");
  t.is(violation(pgpArmor(MESSAGE, { before: "\n\r\n  \n", after: " \t\r\n\n" })), "accepted");
});

test("a checksum is optional and never a reason to refuse", (t) => {
  for (const checksum of [undefined, "=AAAA", "=", "=====", "=not/base64!", `=${"x".repeat(75)}`]) {
    t.is(violation(pgpArmor(MESSAGE, { checksum })), "accepted", checksum);
  }
  t.is(violation(pgpArmor(MESSAGE, { checksum: `=${"x".repeat(76)}` })), "malformed");
  t.is(violation(pgpArmor(MESSAGE, { checksum: "=AAAA\n=AAAA" })), "malformed");
  t.is(violation(pgpArmor(MESSAGE, { checksum: "=AA AA" })), "malformed");
});

test("other armor, and what only looks like armor, is not ciphertext", (t) => {
  for (const label of [
    "PGP PUBLIC KEY BLOCK",
    "PGP PRIVATE KEY BLOCK",
    "PGP SIGNED MESSAGE",
    "PGP SIGNATURE",
    "PGP MESSAGE, PART 1/2",
    "CERTIFICATE",
    "AGE SECRET KEY",
  ]) {
    t.is(violation(text(`-----BEGIN ${label}-----\n\nAAAA\n`)), "not-ciphertext", label);
  }
  t.is(outcome(armored((a) => ` ${a}`)), "not-ciphertext@1", "armor that does not begin a line");
  t.is(outcome(text(`${" ".repeat(1023)}\n${BEGIN}`)), `truncated@${1024 + BEGIN.length}`);
  t.is(outcome(text(`${" ".repeat(1024)}\n${BEGIN}`)), "not-ciphertext@1024");
  t.is(outcome(text("\nhello")), "not-ciphertext@1");
  t.is(outcome(join(0x0a, MESSAGE)), "not-ciphertext@1", "binary after white space");
  t.is(outcome(text("\n")), "truncated@1");
});

test("armor around something that is not encrypted is not ciphertext", (t) => {
  t.is(violation(pgpArmor(packet(4, noise(50, 1)))), "not-ciphertext");
  t.is(violation(pgpArmor(packet(8, noise(50, 1)))), "not-ciphertext");
  t.is(violation(pgpArmor(text("-- PostgreSQL database dump"))), "not-ciphertext");
  t.is(violation(ageArmor(text("-- PostgreSQL database dump"))), "not-ciphertext");
  t.is(violation(ageArmor(MESSAGE)), "not-ciphertext", "OpenPGP in age's armor");
  t.is(violation(pgpArmor(AGE)), "not-ciphertext", "age in OpenPGP's armor");
  t.is(violation(pgpArmor(packet(9, noise(50, 1)))), "not-integrity-protected");
});

test("offsets in armor are those of the stream", (t) => {
  const message = join(MESSAGE, text("!"));
  const armor = Buffer.from(pgpArmor(message)).toString("latin1");
  // The byte after the message comes with the second character of the group before the padding.
  t.is(outcome(text(armor)), `trailing-data@${armor.indexOf("==\n") - 1}`);
});

test("broken armor is malformed", (t) => {
  const refused = (name: string, change: (armor: string) => string) =>
    t.is(violation(armored(change)), "malformed", name);
  refused("no blank line", (a) => a.replace("\n\n", "\n"));
  refused("text after the first line", (a) => a.replace(`${BEGIN}\n`, `${BEGIN}x\n`));
  refused("a header without colon", (a) => a.replace("\n\n", "\nVersion\n\n"));
  refused("a header without space", (a) => a.replace("\n\n", "\nVersion:1\n\n"));
  refused("a header that begins with a colon", (a) => a.replace("\n\n", "\n: x\n\n"));
  refused("a control character in a header", (a) => a.replace("\n\n", "\nComment: \x00\n\n"));
  refused("a control character in a header's key", (a) => a.replace("\n\n", "\nCom\x7fment: x\n\n"));
  refused("a delete character in a header", (a) => a.replace("\n\n", "\nComment: \x7f\n\n"));
  refused("text in the blank line", (a) => a.replace("\n\n", "\n x\n\n"));
  refused("a blank line in the base64", (a) => a.replace(/(\n[^\n]{64}\n)/, "$1\n"));
  refused("a space in the base64", (a) => a.replace(/\n([^\n]{64})\n/, "\n$1 \n"));
  refused("another alphabet", (a) => a.replace(/\n(.)([^\n]{63})\n/, "\n_$2\n"));
  refused("a carriage return alone", (a) => a.replace(/\n([^\n]{64})\n/, "\n$1\r"));
  refused("a carriage return within", (a) => a.replace(/\n([^\n]{64})\n/, "\n$1\rA\n"));
  refused("padding within", (a) => a.replace(/\n(.)(.)(.)(.)([^\n]{60})\n/, "\n$1$2==$5\n"));
  refused("one padding character too many", (a) => a.replace("\n=AAAA", "=\n=AAAA"));
  refused("a truncated group", (a) => a.replace(/.\n=AAAA/, "\n=AAAA"));
  refused("a wrong last line", (a) => a.replace(END, "-----END PGP MESSAGE----"));
  refused("another last line", (a) => a.replace(END, "-----END AGE ENCRYPTED FILE-----"));
  refused("a last line after spaces", (a) => a.replace(END, ` ${END}`));
  refused("a line between checksum and last line", (a) => a.replace(`\n${END}`, `\n\n${END}`));
  const padded = pgpArmor(join(packet(1, join(3, noise(100, 1))), packet(18, join(1, noise(150, 2)))));
  t.is(violation(padded), "accepted");
  t.is(violation(armored((a) => a.replace("==\n", "=\n"), padded)), "malformed", "a padding character missing");
  t.is(violation(armored((a) => a.replace("==\n", "=A\n"), padded)), "malformed", "base64 between padding characters");
  t.is(violation(armored((a) => a.replace("==\n", "=\n=\n"), padded)), "accepted", "a line end between them");
  t.is(violation(armored((a) => a.replace(/.==\n/, "B==\n"), padded)), "malformed", "bits after the last byte");
  t.is(violation(armored((a) => a.replace("==\n", "==\nAAAA\n"), padded)), "malformed", "base64 after padding");
});

test("lines have at most 76 characters, and exactly 64 in age armor", (t) => {
  t.is(violation(pgpArmor(MESSAGE, { columns: 77 })), "malformed");
  const age = Buffer.from(AGE).toString("base64");
  const wrap = (columns: number) =>
    text(
      "-----BEGIN AGE ENCRYPTED " +
        `FILE-----\n${age.replaceAll(new RegExp(`.{1,${columns}}`, "g"), "$&\n")}-----END AGE ENCRYPTED ` +
        `FILE-----\n`,
    );
  t.is(violation(wrap(64)), "accepted");
  t.is(violation(wrap(60)), "malformed");
  t.is(violation(wrap(63)), "malformed");
  t.is(violation(wrap(68)), "malformed");
});

test("armor that ends while the message does not is truncated", (t) => {
  const half = MESSAGE.subarray(0, MESSAGE.length - 3);
  const armor = Buffer.from(pgpArmor(half)).toString("latin1");
  t.is(outcome(text(armor)), `truncated@${armor.indexOf("-----END")}`);
  t.is(violation(pgpArmor(new Uint8Array())), "truncated");
  t.is(violation(ageArmor(new Uint8Array())), "truncated");
  t.is(violation(ageArmor(AGE.subarray(0, AGE.length - 100))), "truncated");
  const whole = pgpArmor(MESSAGE, { after: "" });
  for (let length = 1; length < whole.length; length += 1) {
    t.is(outcome(whole.subarray(0, length)), `truncated@${length}`);
  }
});

test("after armor comes white space alone, and not much of it", (t) => {
  for (const make of [(after: string) => pgpArmor(MESSAGE, { after }), (after: string) => ageArmor(AGE, "\n", after)]) {
    const end = make("").length;
    t.is(violation(make("")), "accepted");
    t.is(violation(make("\r\n \t\n")), "accepted");
    t.is(violation(make(`\n${" ".repeat(1022)}`)), "accepted");
    t.is(outcome(make(`\n${" ".repeat(1023)}`)), `trailing-data@${end + 1023}`);
    t.is(outcome(make("\nx")), `trailing-data@${end + 1}`);
    t.is(outcome(make("-")), `trailing-data@${end}`);
  }
  t.is(violation(pgpArmor(MESSAGE, { after: " \n" })), "accepted");
  t.is(violation(ageArmor(AGE, "\n", " \n")), "trailing-data", "as age itself refuses it");
});

test("armor headers end within 4 KiB, session keys with all their line ends within 64 KiB", (t) => {
  // The first line with its end has 28 bytes, "Comment: " and a line end have 10, the blank line 1.
  const comment = (length: number) => pgpArmor(MESSAGE, { headers: [`Comment: ${"x".repeat(length)}`] });
  t.is(violation(comment(4096 - 28 - 10 - 1)), "accepted");
  t.is(outcome(comment(4096 - 28 - 10)), "header-too-long@4096");
  t.is(outcome(text(`${BEGIN}\r\n${"A: b\r\n".repeat(1000)}`)), "header-too-long@4096");
  const data = packet(18, join(1, noise(60, 4)));
  const keys = (length: number) => packet(1, join(3, noise(length, 1)), "new5");
  t.is(violation(pgpArmor(join(keys(48_000), data))), "accepted");
  t.is(outcome(pgpArmor(join(keys(49_000), data))), "header-too-long@65536");
  t.is(violation(join(keys(49_000), data)), "accepted", "binary");
  t.is(violation(pgpArmor(join(packet(1, join(3, noise(40, 1))), data, packet(21, noise(60_000, 1))))), "accepted");
  const stanzas = (count: number) => join(ageHeader(Array(count).fill(stanza(["x"], noise(48, 1)))), noise(216, 1));
  t.is(violation(ageArmor(stanzas(650))), "accepted");
  t.is(outcome(ageArmor(stanzas(750))), "header-too-long@65536");
  t.is(violation(stanzas(750)), "accepted", "binary");
});

test("what the machine says of armored streams", (t) => {
  for (const [stream, format, begin] of [
    [pgpArmor(MESSAGE), "openpgp", BEGIN.length],
    [ageArmor(AGE), "age", "-----BEGIN AGE ENCRYPTED FILE-----".length],
  ] as const) {
    const machine = new FramingMachine(ANY);
    machine.push(stream.subarray(0, begin - 1));
    t.is(machine.format, undefined);
    t.false(machine.armored);
    machine.push(stream.subarray(begin - 1, begin));
    t.is(machine.format, format);
    t.true(machine.armored);
    machine.push(stream.subarray(begin, stream.length - 2));
    t.false(machine.complete);
    machine.push(stream.subarray(stream.length - 2, stream.length - 1));
    t.true(machine.complete);
    const other = { formats: [format === "age" ? "openpgp" : "age"] } as const;
    t.is(outcome(stream, other), `format-not-accepted@${begin - 1}`);
  }
});
