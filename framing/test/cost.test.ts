import test from "ava";
import { FramingMachine } from "../src/index.ts";
import { ANY, ageArmor, ageHeader, join, noise, packet, partialPacket, pgpArmor, stanza } from "./support.ts";

const KEY = packet(1, join(3, noise(270, 1)), "old2");

/** Pushes a stream in chunks and counts how many of its bytes the machine looks at. */
function looks(stream: Uint8Array, chunk: number): number {
  let count = 0;
  const machine = new FramingMachine(ANY);
  for (let at = 0; at < stream.length; at += chunk) {
    const observed = new Proxy(stream.subarray(at, at + chunk), {
      get(target, property) {
        if (typeof property === "string" && /^\d+$/.test(property)) count += 1;
        return Reflect.get(target, property);
      },
    });
    machine.push(observed);
  }
  machine.finish();
  return count;
}

test("of a binary message only headers and the starts of bodies are looked at, whatever the chunks", (t) => {
  const body = join(1, noise(1 << 20, 2));
  const whole = join(KEY, packet(18, body));
  // Header and recipient of the key packet, header and version of the data packet; the first byte twice, once to tell
  // the format.
  const heads = 1 + 3 + 9 + 6 + 1;
  for (const chunk of [whole.length, 1 << 16, 1000]) t.is(looks(whole, chunk), heads);
  const parts = join(KEY, partialPacket(18, body, Array(200).fill(13)));
  for (const chunk of [parts.length, 1 << 16, 1000]) t.is(looks(parts, chunk), 1 + 3 + 9 + 1 + 1 + (1 << 7) + 1);
});

test("of a binary age file only the header is looked at", (t) => {
  const header = ageHeader([stanza(["X25519", "abc"], noise(32, 1))]);
  const file = join(header, noise(1 << 20, 3));
  for (const chunk of [file.length, 1 << 16, 1000]) t.is(looks(file, chunk), 1 + header.length);
});

test("armor is looked at about once a byte", (t) => {
  const body = join(1, noise(1 << 18, 2));
  const streams = [
    pgpArmor(join(KEY, partialPacket(18, body, Array(200).fill(13)))),
    ageArmor(join(ageHeader([stanza(["X25519", "abc"], noise(32, 1))]), body)),
  ];
  for (const stream of streams) {
    for (const chunk of [stream.length, 1000]) t.true(looks(stream, chunk) < stream.length * 1.1);
  }
});
