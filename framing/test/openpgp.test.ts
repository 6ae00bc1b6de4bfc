import { gzipSync } from "node:zlib";
import test from "ava";
import { FramingError, FramingMachine } from "../src/index.ts";
import { ANY, join, noise, outcome, packet, partialPacket, run, text, violation } from "./support.ts";

const AGE_ONLY = { formats: ["age"] } as const;
const KEY = packet(1, join(3, noise(8, 1), 1, noise(256, 2)));
const PASSPHRASE = packet(3, join(4, noise(12, 3)));
const DATA = packet(18, join(1, noise(60, 4)));
const MESSAGE = join(KEY, DATA);
const MARKER = packet(10, text("PGP"));

test("plaintext in its usual forms is not ciphertext, and the first byte tells", (t) => {
  const tar = new Uint8Array(1024);
  tar.set(text("dump/base.sql"));
  const plain: Record<string, Uint8Array> = {
    "plain pg_dump": text("--\n-- PostgreSQL database dump\n--\n"),
    "custom pg_dump": text("PGDMP\x01\x0e\x00"),
    mysqldump: text("/*!40101 SET NAMES utf8 */;\n"),
    gzip: new Uint8Array(gzipSync("x".repeat(100))),
    zip: Uint8Array.of(0x50, 0x4b, 3, 4, 20, 0),
    zstd: Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 4, 0),
    xz: Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0),
    bzip2: text("BZh91AY&SY"),
    tar,
    json: text('{"a": 1}'),
    zeros: new Uint8Array(100),
    utf16: Uint8Array.of(0xff, 0xfe, 0x2d, 0),
    bom: join(0xef, 0xbb, 0xbf, text("-----BEGIN PGP MESSAGE-----\n")),
    java: Uint8Array.of(0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 65),
  };
  for (const [name, stream] of Object.entries(plain)) {
    const expected =
      name === "plain pg_dump" ? "not-ciphertext@2" : name === "java" ? "malformed@1" : "not-ciphertext@0";
    t.is(outcome(stream), expected, name);
  }
});

test("messages for people say what was found and what to do", (t) => {
  const message = (stream: Uint8Array) => {
    const verdict = run(stream);
    return verdict.accepted ? "" : verdict.message;
  };
  t.regex(message(text("PGDMP")), /custom-format pg_dump.*Encrypt the dump.*gpg --encrypt.*at byte 0/);
  t.regex(message(packet(8, noise(100, 1))), /compressed message \(packet 8\).*not encrypted/);
  t.regex(message(packet(4, noise(13, 1))), /signed message/);
  t.regex(message(packet(11, noise(40, 1))), /literal message/);
  t.regex(message(packet(6, noise(40, 1), "old2")), /public key/);
  t.regex(message(join(KEY, text("hello"))), /byte 0x68 \("h"\), which begins no packet/);
  t.regex(message(join(KEY, packet(2, noise(40, 1)))), /expected a session-key packet or encrypted data, got packet 2/);
  t.regex(message(KEY), /ends inside a binary OpenPGP message.*at byte \d+ of the stream/);
  t.regex(message(text("-----BEGIN PGP MESSAGE-----\n")), /ends inside an armored OpenPGP message/);
  t.regex(message(text("age-encryption.org/v1\n")), /ends inside a binary age file/);
  t.regex(message(text("-----BEGIN ")), /ends inside its first line/);
  t.regex(message(text("--\n-- Postgre")), /got an SQL dump.*Encrypt/);
});

test("OpenPGP that is not encrypted is not ciphertext", (t) => {
  for (const type of [2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 17, 19, 40, 63]) {
    t.is(outcome(packet(type, noise(50, type))), "not-ciphertext@0", `packet ${type}`);
    t.is(outcome(join(MARKER, packet(type, noise(50, type)))), "not-ciphertext@5", `packet ${type} after a marker`);
  }
  t.is(outcome(Uint8Array.of(0xa3, 1)), "not-ciphertext@0", "compressed, of indeterminate length, as old gpg made it");
});

test("a first packet that shows no known version is not ciphertext, a later one malformed", (t) => {
  const bad = packet(1, join(9, noise(30, 1)));
  t.is(outcome(bad), "not-ciphertext@2");
  t.is(outcome(packet(3, join(7, noise(30, 1)))), "not-ciphertext@2");
  t.is(outcome(packet(10, text("PGQ"))), "not-ciphertext@4");
  t.is(outcome(join(KEY, bad)), `malformed@${KEY.length + 2}`);
  t.is(outcome(join(KEY, packet(3, join(7, noise(30, 1))))), `malformed@${KEY.length + 2}`);
  t.is(outcome(join(KEY, packet(10, text("xGP")))), `malformed@${KEY.length + 2}`);
});

test("a message of keys and data is accepted, markers and padding around them", (t) => {
  const padding = packet(21, noise(70, 9));
  t.is(violation(MESSAGE), "accepted");
  t.is(violation(join(PASSPHRASE, DATA)), "accepted");
  t.is(violation(join(MARKER, padding, KEY, MARKER, PASSPHRASE, KEY, padding, DATA, padding, MARKER)), "accepted");
  t.is(violation(join(KEY, packet(21, new Uint8Array()), DATA)), "accepted");
});

test("data without session keys, twice, or something else between is malformed or trailing", (t) => {
  t.is(outcome(DATA), "malformed@0");
  t.is(outcome(join(MARKER, DATA)), `malformed@${MARKER.length}`);
  t.is(outcome(join(MESSAGE, DATA)), `trailing-data@${MESSAGE.length}`);
  t.is(outcome(join(MESSAGE, MESSAGE)), `trailing-data@${MESSAGE.length}`);
  t.is(outcome(join(MESSAGE, 0)), `trailing-data@${MESSAGE.length}`);
  t.is(outcome(join(MESSAGE, MARKER, text("\n"))), `trailing-data@${MESSAGE.length + MARKER.length}`);
  t.is(outcome(join(KEY, packet(2, noise(40, 1)), DATA)), `malformed@${KEY.length}`);
  t.is(outcome(join(KEY, text("hello"))), `malformed@${KEY.length}`);
  t.is(outcome(KEY), `truncated@${KEY.length}`);
  t.is(outcome(MARKER), `truncated@${MARKER.length}`);
  t.is(outcome(new Uint8Array()), "empty@0");
});

test("data without integrity protection is refused for that, wherever it comes", (t) => {
  const unprotected = packet(9, noise(60, 1));
  t.is(outcome(join(KEY, unprotected)), `not-integrity-protected@${KEY.length}`);
  t.is(outcome(unprotected), "not-integrity-protected@0");
  t.is(outcome(join(KEY, Uint8Array.of(0xa7), noise(60, 1))), `not-integrity-protected@${KEY.length}`);
  t.is(outcome(join(MESSAGE, unprotected)), `trailing-data@${MESSAGE.length}`);
});

test("indeterminate lengths are malformed", (t) => {
  t.is(outcome(join(0x87, noise(100, 1))), "malformed@0");
  t.is(outcome(join(KEY, 0x8f, noise(100, 1))), `malformed@${KEY.length}`);
});

test("partial lengths are for data only and begin with 512 bytes", (t) => {
  t.is(violation(join(KEY, partialPacket(18, join(1, noise(511, 1)), [9]))), "accepted", "an empty last part");
  t.is(violation(join(KEY, partialPacket(20, join(1, noise(3000, 1)), [10, 0, 0, 1]))), "accepted");
  t.is(outcome(join(KEY, partialPacket(18, join(1, noise(999, 1)), [8]))), `malformed@${KEY.length + 1}`);
  t.is(outcome(join(0xc1, 0xe9, 3, noise(600, 1))), "malformed@1");
  t.is(outcome(join(KEY, 0xd5, 0xe9, noise(600, 1))), `malformed@${KEY.length + 1}`);
  const open = join(KEY, 0xd2, 0xe9, 1, noise(511, 1));
  t.is(outcome(open), `truncated@${open.length}`, "a body that ends with a part that another should follow");
});

test("encrypted data has a known version and room for the shortest message", (t) => {
  const at = (body: Uint8Array, type = 18) => outcome(join(KEY, packet(type, body))).replace(/@.*/, "");
  t.is(at(join(1, noise(40, 1))), "accepted");
  t.is(at(join(1, noise(39, 1))), "malformed");
  t.is(at(join(2, noise(75, 1))), "accepted");
  t.is(at(join(2, noise(74, 1))), "malformed");
  t.is(at(join(1, noise(55, 1)), 20), "accepted");
  t.is(at(join(1, noise(54, 1)), 20), "malformed");
  t.is(at(join(0, noise(99, 1))), "malformed");
  t.is(at(join(3, noise(99, 1))), "malformed");
  t.is(at(join(2, noise(99, 1)), 20), "malformed");
  t.is(at(new Uint8Array()), "malformed");
});

test("session-key packets have room for what their version needs", (t) => {
  const at = (body: Uint8Array, type = 1) => outcome(join(KEY, packet(type, body), DATA)).replace(/@.*/, "");
  t.is(at(join(3, noise(11, 1))), "accepted");
  t.is(at(join(3, noise(10, 1))), "malformed");
  t.is(at(Uint8Array.of(6, 0, 25, 0, 0)), "accepted");
  t.is(at(Uint8Array.of(6, 0, 25, 0)), "malformed");
  t.is(at(join(6, 21, 4, noise(23, 1))), "accepted");
  t.is(at(join(6, 21, 4, noise(22, 1))), "malformed");
  t.is(at(join(6, 21, 6, noise(60, 1))), "malformed");
  t.is(at(join(6, 33, 6, noise(35, 1))), "accepted");
  t.is(at(join(6, 33, 6, noise(34, 1))), "malformed");
  t.is(at(join(6, 33, 4, noise(60, 1))), "malformed");
  t.is(at(join(6, 20, 4, noise(60, 1))), "malformed");
  t.is(at(Uint8Array.of(4, 9, 0, 8), 3), "accepted");
  t.is(at(Uint8Array.of(4, 9, 0), 3), "malformed");
  t.is(at(Uint8Array.of(5, 9, 2, 0), 3), "malformed");
  t.is(at(Uint8Array.of(6, 5, 9, 2, 2, 0), 3), "malformed");
  t.is(outcome(packet(10, text("PGPP"))), "malformed@1");
});

test("session keys end within the first 64 KiB, and one that claims more is refused at its header", (t) => {
  // 3 bytes of header in the old format.
  const upTo = (end: number) => packet(1, join(3, noise(end - 4, 1)), "old2");
  t.is(violation(join(packet(21, noise(65_536 - 6 - KEY.length, 1), "new5"), KEY, DATA)), "accepted");
  t.is(
    outcome(join(packet(21, noise(65_536 - 5 - KEY.length, 1), "new5"), KEY, DATA)),
    `header-too-long@${65_536 - KEY.length + 3}`,
  );
  t.is(violation(join(upTo(60_000), packet(3, join(4, noise(65_536 - 60_000 - 4, 1)), "old2"), DATA)), "accepted");
  t.is(outcome(join(upTo(60_000), packet(3, join(4, noise(65_536 - 60_000 - 3, 1)), "old2"))), "header-too-long@60002");
  t.is(outcome(Uint8Array.of(0x86, 0, 1, 0, 0)), "header-too-long@4");
  t.is(outcome(Uint8Array.of(0xc1, 0xff, 0xff, 0xff, 0xff, 0xff)), "header-too-long@5");
  t.is(outcome(Uint8Array.of(0xd5, 0xff, 0, 0, 0xff, 0xfb)), "header-too-long@5", "padding counts");
  t.is(outcome(Uint8Array.of(0xd5, 0xff, 0, 0, 0xff, 0xfa)), "truncated@6");
  const full = join(KEY, packet(21, noise(65_536 - KEY.length - 6, 1), "new5"));
  t.is(full.length, 65_536);
  t.is(violation(join(full, DATA)), "accepted", "the payload begins right after the limit");
  t.is(outcome(join(full, KEY)), "header-too-long@65536");
  t.is(outcome(join(full, MARKER)), "header-too-long@65536");
  t.is(outcome(join(full, packet(9, noise(60, 1)))), "not-integrity-protected@65536");
  const short = join(KEY, packet(21, noise(65_536 - KEY.length - 7, 1), "new5"));
  t.is(outcome(join(short, KEY)), "header-too-long@65536", "within a header");
  t.is(violation(join(MESSAGE, packet(21, noise(100_000, 1)))), "accepted", "no limit after the payload");
});

test("lengths of five octets reach 4 GiB, and their bodies are passed over", (t) => {
  const machine = new FramingMachine(ANY);
  machine.push(join(KEY, 0xd2, 0xff, 0xff, 0xff, 0xff, 0xff, 1));
  const zeros = new Uint8Array(1 << 26);
  for (let count = 0; count < 63; count += 1) machine.push(zeros);
  machine.push(zeros.subarray(0, zeros.length - 3));
  t.false(machine.complete);
  machine.push(zeros.subarray(0, 1));
  t.true(machine.complete);
  t.is(machine.offset, BigInt(KEY.length + 6) + 0xffff_ffffn);
  const error = t.throws(() => machine.push(Uint8Array.of(0xd2)), { instanceOf: FramingError });
  t.is(error.violation, "trailing-data");
  t.is(error.offset, BigInt(KEY.length + 6) + 0xffff_ffffn);
});

test("a format that is not accepted is refused with the byte that tells it", (t) => {
  t.is(outcome(MESSAGE, AGE_ONLY), "format-not-accepted@0");
  t.is(outcome(packet(9, noise(60, 1)), AGE_ONLY), "format-not-accepted@0");
  t.is(outcome(packet(8, noise(60, 1)), AGE_ONLY), "not-ciphertext@0");
  t.is(outcome(MESSAGE, { formats: [] }), "format-not-accepted@0");
});

test("a state of a format that is no longer accepted is refused by the next push, even empty, and by finish", (t) => {
  const machine = new FramingMachine(ANY);
  machine.push(MESSAGE);
  const state = machine.encodeState();
  for (const act of [
    (later: FramingMachine) => later.push(new Uint8Array()),
    (later: FramingMachine) => later.finish(),
  ]) {
    const error = t.throws(() => act(new FramingMachine(AGE_ONLY, state)), { instanceOf: FramingError });
    t.is(error.violation, "format-not-accepted");
    t.is(error.offset, BigInt(MESSAGE.length));
  }
});
