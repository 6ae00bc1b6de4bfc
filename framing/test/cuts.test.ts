import test from "ava";
import fc from "fast-check";
import { FramingError, FramingMachine, FramingStateError } from "../src/index.ts";
import { accepts } from "./reference.ts";
import { ANY, cuts, mutations, noise, openPgpMessage, run, validStream, wordless } from "./support.ts";

test("valid streams are accepted, whatever the cuts, and end in the same state", (t) => {
  fc.assert(
    fc.property(validStream, cuts, (stream, { chunks, segment }) => {
      const whole = run(stream);
      t.true(
        whole.accepted,
        JSON.stringify(whole, (_, value) => (typeof value === "bigint" ? `${value}` : value)),
      );
      t.deepEqual(run(stream, chunks, segment), whole);
    }),
    { numRuns: 400 },
  );
});

test("changed streams get the same verdict, violation and offset whatever the cuts", (t) => {
  fc.assert(
    fc.property(validStream, mutations, cuts, (stream, mutate, { chunks, segment }) => {
      const changed = mutate(stream);
      t.deepEqual(wordless(run(changed, chunks, segment)), wordless(run(changed)));
    }),
    { numRuns: 600 },
  );
});

test("byte by byte, with a new machine for every byte, the verdict is the same", (t) => {
  fc.assert(
    fc.property(validStream, mutations, (stream, mutate) => {
      const changed = mutate(stream).subarray(0, 3_000);
      t.deepEqual(wordless(run(changed, [1], 1)), wordless(run(changed)));
    }),
    { numRuns: 150 },
  );
});

test("the machine accepts exactly what a plain parser over the whole buffer accepts", (t) => {
  const seen = { accepted: 0, refused: 0 };
  fc.assert(
    fc.property(validStream, mutations, (stream, mutate) => {
      t.true(accepts(stream));
      const changed = mutate(stream);
      const { accepted } = run(changed);
      seen[accepted ? "accepted" : "refused"] += 1;
      t.is(accepted, accepts(changed), Buffer.from(changed.subarray(0, 4_000)).toString("latin1"));
    }),
    { numRuns: 3_000 },
  );
  t.true(seen.accepted > 300 && seen.refused > 300, JSON.stringify(seen));
});

test("random bytes are refused, and by the plain parser too", (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (stream) => {
      t.false(run(stream).accepted);
      t.false(accepts(stream));
    }),
    { numRuns: 2_000 },
  );
});

test("every proper prefix of a binary OpenPGP message is refused as truncated, or empty", (t) => {
  fc.assert(
    fc.property(openPgpMessage, (message) => {
      const machine = new FramingMachine(ANY);
      for (let length = 0; length < message.length; length += 1) {
        const prefix = new FramingMachine(ANY, machine.encodeState());
        t.false(prefix.complete);
        const error = t.throws(() => prefix.finish(), { instanceOf: FramingError });
        t.is(error.violation, length === 0 ? "empty" : "truncated");
        t.is(error.offset, BigInt(length));
        machine.push(message.subarray(length, length + 1));
      }
      t.true(machine.complete);
      t.notThrows(() => machine.finish());
    }),
    // Each run tries thousands of prefixes.
    { numRuns: 15 },
  );
});

test("a machine that refused stays dead and gives the same error to everything", (t) => {
  const machine = new FramingMachine(ANY);
  const error = t.throws(() => machine.push(noise(3, 1).fill(0)), { instanceOf: FramingError });
  t.is(
    t.throws(() => machine.push(Uint8Array.of(0xc1))),
    error,
  );
  t.is(
    t.throws(() => machine.finish()),
    error,
  );
  t.is(
    t.throws(() => machine.encodeState()),
    error,
  );
  t.false(machine.complete);
});

test("an early finish kills the machine, too", (t) => {
  const machine = new FramingMachine(ANY);
  t.throws(() => machine.finish(), { instanceOf: FramingError, message: /not one byte/ });
  t.throws(() => machine.push(Uint8Array.of(0xc1)), { instanceOf: FramingError, message: /not one byte/ });
});

test("a state error is no framing error", (t) => {
  t.throws(() => new FramingMachine(ANY, new Uint8Array()), { instanceOf: FramingStateError });
});
