import test from "ava";
import { FramingError, FramingMachine, type FramingPolicy } from "../src/index.ts";
import { ANY, join, noise, outcome, packet, run } from "./support.ts";

const DATA = packet(18, join(1, noise(60, 4)));
const REST = join(1, noise(64, 2));
const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));
const V4 = "00112233445566778899aabbccddeeff01234567";
const V4_ID = V4.slice(-16);
const V6 = `fedcba9876543210${"5a".repeat(24)}`;
const V6_ID = V6.slice(0, 16);
const OTHER = "1111111111111111";

const pin = (...recipientKeyIds: string[]): FramingPolicy => ({ formats: ["openpgp"], recipientKeyIds });
const v3 = (keyId: string) => packet(1, join(3, bytes(keyId), REST));
const v6 = (fingerprint: string) =>
  packet(1, join(6, fingerprint.length / 2 + 1, fingerprint.length === 40 ? 4 : 6, bytes(fingerprint), REST));
const HIDDEN_V3 = v3("0".repeat(16));
const HIDDEN_V6 = packet(1, join(6, 0, REST));
const PASSPHRASE = packet(3, join(4, noise(12, 3)));

test("pinned recipients are accepted by key id and by fingerprint", (t) => {
  t.is(outcome(join(v3(V4_ID), DATA), pin(V4_ID)), "accepted");
  t.is(outcome(join(v3(V4_ID), DATA), pin(V4)), "accepted");
  t.is(outcome(join(v6(V4), DATA), pin(V4)), "accepted");
  t.is(outcome(join(v6(V4), DATA), pin(V4_ID)), "accepted");
  t.is(outcome(join(v6(V6), DATA), pin(V6)), "accepted");
  t.is(outcome(join(v6(V6), DATA), pin(V6_ID)), "accepted");
  t.is(outcome(join(v3(V6_ID), DATA), pin(V6)), "accepted");
  t.is(outcome(join(v3(OTHER), v3(V4_ID), DATA), pin(V4, OTHER)), "accepted");
});

test("every recipient must be pinned; the refusal comes with the last byte of its key id", (t) => {
  t.is(outcome(join(v3(OTHER), DATA), pin(V4_ID)), "recipient-not-accepted@10");
  t.is(
    outcome(join(v3(V4_ID), v3(OTHER), DATA), pin(V4_ID)),
    `recipient-not-accepted@${v3(V4_ID).length + 10}`,
    "a second one, as encrypt-to adds it",
  );
  t.is(outcome(join(v6(V6), DATA), pin(V4)), "recipient-not-accepted@36");
  t.is(outcome(join(v6(V4), DATA), pin(V6)), "recipient-not-accepted@24");
  t.is(outcome(join(v3(V4_ID), DATA), pin()), "recipient-not-accepted@10", "no key pinned");
});

test("hidden recipients and passphrases are refused where keys are pinned, and only there", (t) => {
  const zero = "0".repeat(16);
  t.is(outcome(join(HIDDEN_V3, DATA), pin(V4_ID)), "recipient-not-accepted@10");
  t.is(outcome(join(HIDDEN_V3, DATA), pin(zero)), "recipient-not-accepted@10");
  t.is(outcome(join(HIDDEN_V6, DATA), pin(V4_ID)), "recipient-not-accepted@3");
  t.is(outcome(join(PASSPHRASE, DATA), pin(V4_ID)), "recipient-not-accepted@0");
  t.is(outcome(join(v3(V4_ID), PASSPHRASE, DATA), pin(V4_ID)), `recipient-not-accepted@${v3(V4_ID).length}`);
  for (const keys of [HIDDEN_V3, HIDDEN_V6, PASSPHRASE]) t.is(outcome(join(keys, DATA)), "accepted");
});

test("a recipient is checked when its bytes come in several segments", (t) => {
  for (const message of [join(v3(OTHER), DATA), join(v6(OTHER.padEnd(64, "0")), DATA)]) {
    const whole = run(message, undefined, 0, pin(V4));
    t.false(whole.accepted);
    for (let length = 1; length < 40; length += 1) t.deepEqual(run(message, [length], 1, pin(V4)), whole);
  }
});

test("states do not depend on the policy", (t) => {
  const message = join(v3(V4_ID), v6(V6), DATA);
  for (let length = 0; length <= message.length; length += 1) {
    const states = [ANY, pin(V4, V6)].map((policy) => {
      const machine = new FramingMachine(policy);
      machine.push(message.subarray(0, length));
      return Buffer.from(machine.encodeState()).toString("hex");
    });
    t.is(states[0], states[1]);
  }
});

test("the message names the key that is not accepted", (t) => {
  const machine = new FramingMachine(pin(V4));
  const error = t.throws(() => machine.push(v3(OTHER)), { instanceOf: FramingError });
  t.regex(error.message, /the key 1111111111111111\..*encrypt-to/);
});

test("a malformed recipient in a policy is a TypeError that shows it", (t) => {
  for (const bad of ["", V4_ID.toUpperCase(), V4.slice(2), `0x${V4_ID}`, "0011 2233", V4_ID.slice(1)]) {
    t.throws(() => new FramingMachine(pin(bad)), { instanceOf: TypeError, message: /lower-case hex/ }, bad);
  }
});
