import { MAX_FRAMING_STATE_BYTES } from "@strongroom/protocol/limits";
import test from "ava";
import fc from "fast-check";
import {
  FramingError,
  FramingMachine,
  FramingStateError,
  initialFramingState,
  inspectFramingState,
} from "../src/index.ts";
import {
  ANY,
  ageHeader,
  ageMessage,
  join,
  mutations,
  noise,
  openPgpMessage,
  packet,
  pgpArmor,
  run,
  stanza,
  validStream,
} from "./support.ts";

const VERSION = 1;
const state = (...bytes: number[]) => Uint8Array.of(VERSION, ...bytes);

/** A machine from a state, or undefined where the state is refused; anything else but that refusal fails the test. */
function decode(encoded: Uint8Array): FramingMachine | undefined {
  try {
    return new FramingMachine(ANY, encoded);
  } catch (error) {
    if (error instanceof FramingStateError) return undefined;
    throw error;
  }
}

/** Pushes, and says whether the machine lives; anything thrown but a framing error fails the test. */
function push(machine: FramingMachine, chunk: Uint8Array): boolean {
  try {
    machine.push(chunk);
    return true;
  } catch (error) {
    if (error instanceof FramingError) return false;
    throw error;
  }
}

/**
 * What holds for every state that is not refused, forged or not: it has one encoding, and leads only to more such
 * states.
 */
function checkAccepted(machine: FramingMachine, encoded: Uint8Array, chunks: readonly Uint8Array[]): void {
  if (Buffer.compare(machine.encodeState(), encoded) !== 0) throw new Error("two encodings of one state");
  inspectFramingState(encoded);
  for (const chunk of chunks) {
    if (!push(machine, chunk)) return;
    const next = machine.encodeState();
    if (next.length > MAX_FRAMING_STATE_BYTES) throw new Error("too long");
    const again = decode(next);
    if (again === undefined) {
      throw new Error(`${Buffer.from(encoded).toString("hex")} leads to ${Buffer.from(next).toString("hex")}`);
    }
    if (again.complete !== machine.complete || again.format !== machine.format || again.offset !== machine.offset) {
      throw new Error("a state that says something else than its machine");
    }
  }
}

/** Chunks that go on with something likely: line ends, base64, packet headers, many zeros. */
const continuation = fc.array(
  fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 40 }),
    fc
      .constantFrom("\n", "\r\n", "-", "-> x\n", "AAAA", "=", "== \n", "-----END PGP MESSAGE-----\n", " ", "A")
      .map((piece) => new Uint8Array(Buffer.from(piece))),
    fc
      .constantFrom([0xd2, 60, 1], [0xc1, 20, 3], [0xd4, 0xe9, 1], [0xca, 3, 80, 71, 80])
      .map((bytes) => Uint8Array.from(bytes)),
    fc.constantFrom(1, 511, 65_535, 65_536, 65_552).map((length) => new Uint8Array(length)),
    fc.constantFrom(1, 64, 65_536).map((length) => new Uint8Array(length).fill(0x41)),
  ),
  { minLength: 1, maxLength: 6 },
);

test("the initial state is what a new machine encodes and what no state means", (t) => {
  const initial = initialFramingState();
  t.deepEqual(new FramingMachine(ANY).encodeState(), initial);
  t.deepEqual(new FramingMachine(ANY, initial).encodeState(), initial);
  t.deepEqual(inspectFramingState(initial), { complete: false, format: undefined, armored: false, offset: 0n });
  t.is(initial[0], VERSION);
});

test("states are small, decode to themselves, and are inspected as their machine says", (t) => {
  fc.assert(
    fc.property(validStream, fc.nat(), (stream, seed) => {
      const machine = new FramingMachine(ANY);
      const cut = seed % (Math.min(stream.length, 2_000) + 1);
      machine.push(stream.subarray(0, cut));
      const encoded = machine.encodeState();
      t.true(encoded.length <= 64);
      const { complete, format, armored, offset } = machine;
      t.deepEqual(inspectFramingState(encoded), { complete, format, armored, offset });
      t.is(offset, BigInt(cut));
      t.deepEqual(new FramingMachine(ANY, encoded).encodeState(), encoded);
    }),
    { numRuns: 1_000 },
  );
});

test("every prefix of a message has a state of its own", (t) => {
  fc.assert(
    fc.property(fc.oneof(openPgpMessage, ageMessage), (stream) => {
      const machine = new FramingMachine(ANY);
      const states = new Set<string>();
      const length = Math.min(stream.length, 3_000);
      for (let at = 0; at < length; at += 1) {
        states.add(Buffer.from(machine.encodeState()).toString("hex"));
        machine.push(stream.subarray(at, at + 1));
      }
      t.is(states.size, length);
    }),
    { numRuns: 20 },
  );
});

test("random bytes are refused as states, or lead to states that can be used", (t) => {
  const field = fc.oneof(fc.nat({ max: 8 }), fc.nat({ max: 255 }));
  const forged = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.tuple(fc.nat({ max: 4 }), fc.array(field, { maxLength: 50 })).map(([kind, rest]) => state(kind, ...rest)),
    // A plausible offset in two octets, then small fields: this one reaches deep into the decoders.
    fc
      .tuple(fc.nat({ max: 4 }), fc.nat({ max: 255 }), fc.nat({ max: 127 }), fc.array(field, { maxLength: 12 }))
      .map(([kind, low, high, rest]) => state(kind, low | 0x80, high, ...rest)),
  );
  let accepted = 0;
  fc.assert(
    fc.property(forged, continuation, (encoded, chunks) => {
      const machine = decode(encoded);
      if (machine === undefined) return;
      accepted += 1;
      checkAccepted(machine, encoded, chunks);
    }),
    { numRuns: 60_000 },
  );
  t.true(accepted > 100, `${accepted} accepted`);
});

test("changed states are refused as states, or lead to states that can be used", (t) => {
  let accepted = 0;
  fc.assert(
    fc.property(validStream, fc.nat(), mutations, continuation, (stream, seed, mutate, chunks) => {
      const machine = new FramingMachine(ANY);
      machine.push(stream.subarray(0, seed % (Math.min(stream.length, 700) + 1)));
      const changed = mutate(machine.encodeState());
      const forged = decode(changed);
      if (forged === undefined) return;
      accepted += 1;
      checkAccepted(forged, changed, [...chunks, stream]);
    }),
    { numRuns: 6_000 },
  );
  t.true(accepted > 100, `${accepted} accepted`);
});

test("states that are no states are refused with what is wrong", (t) => {
  const refused = (encoded: Uint8Array, message: RegExp) => {
    t.throws(() => new FramingMachine(ANY, encoded), { instanceOf: FramingStateError, message });
    t.throws(() => inspectFramingState(encoded), { instanceOf: FramingStateError, message });
  };
  const initial = initialFramingState();
  refused(new Uint8Array(), /empty/);
  refused(new Uint8Array(513), /513 bytes, and at most 512/);
  refused(new Uint8Array(1 << 24), /at most 512/);
  refused(Uint8Array.of(2, ...initial.subarray(1)), /version is 2/);
  refused(Uint8Array.of(0, ...initial.subarray(1)), /version is 0/);
  refused(initial.subarray(0, initial.length - 1), /ends early/);
  refused(join(initial, 0), /goes on/);
  refused(state(9, 0, 0, 1), /no stream/);
  refused(state(0, 0x80, 0, 0, 1), /shortest form/);
  refused(state(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 1), /no stream/);
  refused(state(0, ...Array(400).fill(0x80)), /no stream/);
  refused(state(0, 0, 0, 0), /no stream/);
});

test("states that no stream leads to are refused", (t) => {
  const refused = (name: string, ...bytes: number[]) =>
    t.throws(() => new FramingMachine(ANY, state(...bytes)), { instanceOf: FramingStateError }, name);
  const accepted = (name: string, ...bytes: number[]) =>
    t.notThrows(() => new FramingMachine(ANY, state(...bytes)), name);
  // Kind, offset, phase, step, then by step: type, partial, remaining, seen.
  accepted("data in the middle", 1, 60, 1, 3, 18, 0, 5);
  refused("data before keys", 1, 60, 0, 3, 18, 0, 5);
  refused("data after data", 1, 100, 2, 3, 18, 0, 5);
  refused("keys after data", 1, 100, 2, 3, 1, 0, 5);
  refused("packet 9", 1, 60, 1, 3, 9, 0, 5);
  refused("a packet of no message", 1, 60, 1, 3, 2, 0, 5);
  refused("nothing remaining", 1, 60, 1, 3, 18, 0, 0);
  refused("partial keys", 1, 60, 1, 3, 1, 1, 5);
  refused("done after nothing", 1, 3, 2, 0);
  refused("the end of keys sooner than any ends", 1, 3, 0, 3, 1, 0, 1);
  refused("the end of data sooner than any ends", 1, 10, 1, 3, 18, 0, 5);
  refused("a further part sooner than any first part ends", 1, 60, 1, 1, 18, 1, 0);
  refused("a length before the packet's first octet", 1, 6, 1, 1, 18, 0, 0);
  refused("a key packet that ends after the limit", 1, 60, 1, 3, 1, 0, 0x80, 0x80, 0x04);
  refused("keys after the limit", 1, 0x81, 0x80, 0x04, 1, 0);
  refused("a part of more than 1 GiB", 1, 60, 1, 3, 18, 1, 0x81, 0x80, 0x80, 0x80, 0x04);
  refused("a body of more than 4 GiB", 1, 60, 1, 3, 18, 0, 0x80, 0x80, 0x80, 0x80, 0x10);
  refused("a recipient of version 9", 1, 60, 1, 2, 1, 0, 20, 1, 9);
  refused("a recipient seen beyond its end", 1, 60, 1, 2, 1, 0, 20, 9, 3, 1, 2, 3, 4, 5, 6, 7, 8);
  // Kind, offset, section, column, then flags.
  accepted("an age payload", 2, 100, 7, 8, 0);
  refused("an age payload sooner than any header ends", 2, 90, 7, 8, 0);
  refused("a second chunk within the first 64 KiB", 2, 100, 7, 8, 1);
  refused("a version line whose column is not its offset", 2, 5, 0, 4);
  refused("a column beyond the nonce", 2, 120, 6, 16);
  // Kind, offset, walker, then section, return, column.
  refused("the end of armor before the end of the message", 3, 100, 0, 0, 6, 0, 0);
  refused("strict armor with headers", 4, 60, 0, 0, 0, 0, 0, 1);

  // Walkers in armor: in the middle of data, and at the end of a message.
  const walking = [1, 3, 18, 0, 5];
  const done = [2, 0];
  const pgp = (walker: number[], ...rest: number[]) => [3, 100, ...walker, ...rest];
  const age = (...rest: number[]) => [4, 120, 7, 5, 0, ...rest];
  accepted("the widest line", ...pgp(walking, 1, 0, 76, 0, 0));
  refused("a wider line", ...pgp(walking, 1, 0, 77, 0, 0));
  accepted("the widest age line", ...age(1, 0, 64, 0, 0));
  refused("a wider age line", ...age(1, 0, 65, 1, 0));
  refused("an age line and a group that do not fit", ...age(1, 0, 5, 2, 0));
  accepted("a group of three", ...pgp(walking, 1, 0, 7, 3, 3));
  refused("more bits than a group of three leaves", ...pgp(walking, 1, 0, 7, 3, 4));
  refused("bits after padding", ...pgp(walking, 1, 0, 7, 4, 1));
  refused("a place beyond padding", ...pgp(walking, 1, 0, 7, 6, 0));
  accepted("a padded line", ...pgp(done, 1, 0, 4, 5, 0));
  refused("a padded line without characters", ...pgp(done, 1, 0, 0, 5, 0));
  accepted("after base64", ...pgp(done, 2, 0, 0));
  refused("a column after base64", ...pgp(done, 2, 0, 1));
  refused("a carriage return after base64", ...pgp(done, 2, 1, 0));
  accepted("a checksum", ...pgp(done, 3, 0, 75));
  refused("a longer checksum", ...pgp(done, 3, 0, 76));
  refused("a checksum in age armor", ...age(3, 0, 4));
  refused("after a checksum in age armor", ...age(4, 0, 0));
  accepted("the last line", ...pgp(done, 5, 0, 24));
  refused("the last line at its end", ...pgp(done, 5, 0, 25));
  refused("the last line before its start", ...pgp(done, 5, 0, 0));
  refused("a last line while the message goes on", ...pgp(walking, 5, 0, 5));
  accepted("white space at the end", 3, 0x80, 0x10, ...done, 6, 0, 0xff, 0x07);
  refused("more of it", 3, 0x80, 0x10, ...done, 6, 0, 0x80, 0x08);
  refused("armor shorter than its first line", 3, 26, 0, 0, 0, 0, 0, 0);
  refused("armor headers around a message that has begun", ...pgp(walking, 0, 0, 0, 1));
  accepted("the end of age armor's first line", 4, 60, 0, 0, 0, 0, 0, 0);
  refused("the same around a file that has begun", 4, 60, 0, 3, 0, 0, 0, 0);
  refused("the same around a header line", 4, 60, 1, 0, 0, 0, 0, 0, 0);

  refused("a marker of four bytes", 1, 60, 1, 2, 10, 0, 4, 0);
  refused("a length octet too many", 1, 60, 1, 1, 18, 0, 5, 0, 0);
  accepted("a length of three octets so far", 1, 60, 1, 1, 18, 0, 1, 0, 0xff, 0xff, 0xff, 0x07);
  refused("a length of four octets so far", 1, 60, 1, 1, 18, 0, 1, 0, 0x80, 0x80, 0x80, 0x08);
  refused("a biased length beyond its first octet", 1, 60, 1, 1, 18, 0, 1, 1, 32);
  refused("a biased length of four octets", 1, 60, 1, 1, 18, 0, 4, 1, 0);
  refused("a further part of a key packet", 1, 60, 1, 1, 1, 1, 0);
  refused("an age line before any age line can be", 2, 10, 1, 0, 0);
  refused("two dashes that were three", 2, 60, 4, 2);
  refused("a line start beyond its second byte", 2, 60, 1, 2, 1);
  refused("bits where none are left over", 2, 60, 3, 4, 0);
});

test("a state leads on from any segment border as the machine itself does", (t) => {
  const message = join(packet(1, join(3, noise(30, 1))), packet(18, join(1, noise(100, 2))));
  for (let cut = 0; cut <= message.length; cut += 1) {
    const first = new FramingMachine(ANY);
    first.push(message.subarray(0, cut));
    const second = new FramingMachine(ANY, first.encodeState());
    first.push(message.subarray(cut));
    second.push(message.subarray(cut));
    t.deepEqual(second.encodeState(), first.encodeState());
    t.true(inspectFramingState(second.encodeState()).complete);
  }
});

test("states on both sides of every limit can be used", (t) => {
  const data = packet(18, join(1, noise(60, 4)));
  const key = packet(1, join(3, noise(40, 1)));
  const comment = (length: number) => pgpArmor(join(key, data), { headers: [`Comment: ${"x".repeat(length)}`] });
  const ageRest = "age-encryption.org/v1\n-> \n\n--- \n".length + 43;
  const longAge = (length: number) =>
    join(ageHeader([stanza(["x".repeat(length - ageRest)], new Uint8Array())]), noise(100, 1));
  const cases: [string, number, Uint8Array][] = [
    ["a key packet up to the limit", 65_536, join(packet(1, join(3, noise(65_536 - 4, 1)), "old2"), data)],
    ["key packets up to the limit", 65_536, join(packet(21, noise(65_536 - 6 - key.length, 1), "new5"), key, data)],
    ["a key packet beyond the limit", 65_536, join(packet(21, noise(65_536 - 16, 1), "new5"), key, data)],
    ["armor headers up to the limit", 4_096, comment(4096 - 28 - 10 - 1)],
    ["armor headers beyond the limit", 4_096, comment(4096 - 28 - 10)],
    ["an age header up to the limit", 65_536, longAge(65_536)],
    ["an age header beyond the limit", 65_536, longAge(65_537)],
    ["armored keys beyond the limit", 65_536, pgpArmor(join(packet(1, join(3, noise(50_000, 1)), "old2"), data))],
    ["leading white space up to its limit", 1_024, pgpArmor(join(key, data), { before: `${" ".repeat(1_023)}\n` })],
    ["leading white space beyond its limit", 1_024, pgpArmor(join(key, data), { before: `${" ".repeat(1_024)}\n` })],
  ];
  for (const [name, limit, stream] of cases) {
    const whole = run(stream);
    t.is(whole.accepted, name.includes("up to"), name);
    t.deepEqual(run(stream, [limit - 5, ...Array(10).fill(1), stream.length], 1), whole, name);
  }
});
