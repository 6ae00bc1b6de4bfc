import test from "ava";
import { FramingMachine } from "../src/index.ts";
import { ANY, ageHeader, join, noise, outcome, run, stanza, text, unpadded, violation } from "./support.ts";

const CHUNK = 65_536 + 16;
const STANZA = stanza(["X25519", "abc"], noise(32, 1));
const HEADER = ageHeader([STANZA]);
const MAC = unpadded(noise(32, 7));
const V1 = "age-encryption.org/v1\n";
const body = noise(16 + 40, 3);
const withHeader = (header: string) => violation(join(text(header), body));

test("the payload has whole chunks, and a last one that is not empty unless it is the first", (t) => {
  const at = (payload: number) => violation(join(HEADER, noise(16 + payload, 1)));
  for (const length of [16, 17, 100, CHUNK - 1, CHUNK, CHUNK + 17, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 17]) {
    t.is(at(length), "accepted", `${length}`);
  }
  for (const length of [0, 1, 15, CHUNK + 1, CHUNK + 15, CHUNK + 16, 2 * CHUNK + 1, 2 * CHUNK + 16]) {
    t.is(at(length), "truncated", `${length}`);
  }
});

test("every prefix of the header, the nonce and the first tag is truncated", (t) => {
  const stream = join(HEADER, noise(16 + 17, 1));
  for (let length = 1; length < stream.length - 1; length += 1) {
    t.is(outcome(stream.subarray(0, length)), `truncated@${length}`);
  }
});

test("stanza bodies of every length pass, in lines of 64 columns of which the last is shorter", (t) => {
  for (let length = 0; length < 150; length += 1) {
    t.is(violation(join(ageHeader([stanza(["x"], noise(length, 5)), STANZA]), body)), "accepted", `${length}`);
  }
  const full = "A".repeat(64);
  t.is(withHeader(`${V1}-> x\n${full}\n\n--- ${MAC}\n`), "accepted");
  t.is(withHeader(`${V1}-> x\n${full}\n--- ${MAC}\n`), "malformed", "no short last line");
  t.is(withHeader(`${V1}-> x\n${full}A\n\n--- ${MAC}\n`), "malformed", "65 columns");
});

test("header lines that break the grammar are malformed", (t) => {
  const header = (stanzas: string, mac = `--- ${MAC}\n`) => withHeader(`${V1}${stanzas}${mac}`);
  t.is(header("-> x\n\n"), "accepted");
  t.is(header(""), "malformed", "no stanza");
  t.is(header("->x\n\n"), "malformed");
  t.is(header("-> \n\n"), "malformed");
  t.is(header("->\n\n"), "malformed");
  t.is(header("->  x\n\n"), "malformed");
  t.is(header("-> x \n\n"), "malformed");
  t.is(header("-> x  y\n\n"), "malformed");
  t.is(header("-> x\ty\n\n"), "malformed");
  t.is(header("-> ü\n\n"), "malformed");
  t.is(header("-> ~\n\n"), "accepted");
  t.is(header("-> \x7f\n\n"), "malformed");
  t.is(header("-> x\r\n\n"), "malformed");
  t.is(header("-> x\nA\n"), "malformed", "6 bits");
  t.is(header("-> x\nAB\n"), "malformed", "bits after the last byte");
  t.is(header("-> x\nAAB\n"), "malformed", "bits after the last byte");
  t.is(header("-> x\nAA==\n"), "malformed", "padding");
  t.is(header("-> x\nA-_A\n"), "malformed", "another alphabet");
  t.is(header("-> x\n\n\n"), "malformed", "a blank line");
  t.is(header("x\n"), "malformed");
  t.is(header("-x\n"), "malformed");
  t.is(header("-> x\n\n", `---${MAC}\n`), "malformed");
  t.is(header("-> x\n\n", `-- ${MAC}\n`), "malformed");
  t.is(header("-> x\n\n", `--- ${MAC.slice(1)}\n`), "malformed", "42 columns");
  t.is(header("-> x\n\n", `--- ${MAC}A\n`), "malformed", "44 columns");
  t.is(header("-> x\n\n", `--- ${MAC}=\n`), "malformed");
  t.is(header("-> x\n\n", `--- ${MAC}\r\n`), "malformed");
  t.is(header("-> x\n\n", `--- ${"A".repeat(42)}B\n`), "malformed", "bits after the last byte");
});

test("a first line that is not of version 1 is not ciphertext", (t) => {
  t.is(outcome(text("age-encryption.org/v2\n")), "not-ciphertext@20");
  t.is(outcome(text("age-encryption.org/v1\r\n")), "not-ciphertext@21");
  t.is(outcome(text("age-encryption.org/v10\n")), "not-ciphertext@21");
  t.is(outcome(text("alter table x;")), "not-ciphertext@1");
  t.is(outcome(text("age")), "truncated@3");
});

test("the format is known and asked for at the end of the first line", (t) => {
  const machine = new FramingMachine(ANY);
  machine.push(text(V1.slice(0, -1)));
  t.is(machine.format, undefined);
  machine.push(text("\n"));
  t.is(machine.format, "age");
  t.false(machine.armored);
  t.is(outcome(join(HEADER, body), { formats: ["openpgp"] }), `format-not-accepted@${V1.length - 1}`);
  t.is(outcome(text("alter table x;"), { formats: ["openpgp"] }), "not-ciphertext@1");
  t.is(violation(join(HEADER, body), { formats: ["age"], recipientKeyIds: [] }), "accepted", "pins are for OpenPGP");
});

test("the header ends within the first 64 KiB", (t) => {
  const rest = V1.length + 6 + `--- ${MAC}\n`.length;
  const header = (length: number) => text(`${V1}-> ${"x".repeat(length - rest + 1)}\n\n--- ${MAC}\n`);
  const longest = join(header(65_536), body);
  t.is(violation(longest), "accepted");
  t.is(longest.length, 65_536 + body.length);
  t.is(outcome(join(header(65_537), body)), "header-too-long@65536");
  t.is(outcome(text(`${V1}-> ${"x".repeat(100_000)}`)), "header-too-long@65536");
  t.is(outcome(text(`${V1}${"-> x\n\n".repeat(20_000)}`)), "header-too-long@65536");
});

test("within the longest line the state stays small", (t) => {
  const machine = new FramingMachine(ANY);
  machine.push(text(`${V1}-> ${"x".repeat(65_000)}`));
  t.true(machine.encodeState().length < 16);
});

test("a payload in segments of odd sizes ends where one in a piece does", (t) => {
  const stream = join(HEADER, noise(16 + 3 * CHUNK + 500, 9));
  t.deepEqual(run(stream, [65_537, 1, 16], 1), run(stream));
});
