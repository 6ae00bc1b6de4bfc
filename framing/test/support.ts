import { MAX_FRAMING_STATE_BYTES } from "@strongroom/protocol/limits";
import fc from "fast-check";
import { FramingError, FramingMachine, type FramingPolicy } from "../src/index.ts";

/** Everything that can be accepted. */
export const ANY: FramingPolicy = { formats: ["openpgp", "age"] };

/** ASCII or UTF-8 text as bytes. */
export const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** All parts in one array. Numbers are single bytes. */
export function join(...parts: (Uint8Array | number)[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts.map((part) => (typeof part === "number" ? Uint8Array.of(part) : part))));
}

/** What became of a stream: its final state, or the error that refused it. */
export type Verdict =
  | { readonly accepted: true; readonly state: string }
  | { readonly accepted: false; readonly violation: string; readonly offset: bigint; readonly message: string };

/**
 * Runs a stream through machines.
 * @param chunks lengths of the chunks, used in a circle; 0 is an empty push
 * @param segment after how many chunks the machine is rebuilt from its encoded state; 0 for never
 */
export function run(
  stream: Uint8Array,
  chunks: readonly number[] = [stream.length],
  segment = 0,
  policy = ANY,
): Verdict {
  let machine = new FramingMachine(policy);
  try {
    let at = 0;
    for (let index = 0; at < stream.length; index += 1) {
      const length = chunks[index % chunks.length]!;
      machine.push(stream.subarray(at, at + length));
      at += length;
      if (segment > 0 && (index + 1) % segment === 0) {
        const state = machine.encodeState();
        if (state.length > MAX_FRAMING_STATE_BYTES) throw new Error(`state of ${state.length} bytes`);
        machine = new FramingMachine(policy, state);
      }
    }
    machine.finish();
  } catch (error) {
    if (!(error instanceof FramingError)) throw error;
    return { accepted: false, violation: error.violation, offset: error.offset, message: error.message };
  }
  return { accepted: true, state: Buffer.from(machine.encodeState()).toString("hex") };
}

/** A verdict without its words, which may say more where the first chunk is longer. */
export function wordless(verdict: Verdict): object {
  return verdict.accepted ? verdict : { accepted: false, violation: verdict.violation, offset: verdict.offset };
}

/** Violation and offset of a refused stream as `malformed@12`, or `accepted`. */
export function outcome(stream: Uint8Array, policy = ANY): string {
  const verdict = run(stream, undefined, 0, policy);
  return verdict.accepted ? "accepted" : `${verdict.violation}@${verdict.offset}`;
}

/** Violation of a refused stream, or `accepted`. */
export function violation(stream: Uint8Array, policy = ANY): string {
  const verdict = run(stream, undefined, 0, policy);
  return verdict.accepted ? "accepted" : verdict.violation;
}

/** Ways to cut a stream: chunk lengths with at least one above 0, and segments. */
export const cuts = fc.record({
  chunks: fc
    .array(
      fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: 100 }), fc.constantFrom(64, 512, 1000, 4096, 65_536, 65_537, 100_000)),
      {
        minLength: 1,
        maxLength: 12,
      },
    )
    .map((lengths) => (lengths.some((length) => length > 0) ? lengths : [1])),
  segment: fc.nat({ max: 4 }),
});

/** How the length of a packet is written. */
export type LengthForm = "old1" | "old2" | "old4" | "new" | "new2" | "new5";

const uint32 = (value: number) => Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);

/** A packet with its header; a form that cannot hold the type or the length falls back to one that can. */
export function packet(type: number, body: Uint8Array, form: LengthForm = "new"): Uint8Array {
  const size = body.length;
  if (form.startsWith("old") && type < 16) {
    const start = 0x80 | (type << 2);
    if (form === "old1" && size < 256) return join(start, size, body);
    if (form !== "old4" && size < 65_536) return join(start | 1, size >> 8, size & 255, body);
    return join(start | 2, uint32(size), body);
  }
  const start = 0xc0 | type;
  if ((form === "new5" || size > 8383 || (form === "new2" && size < 192)) && form !== "new")
    return join(start, 255, uint32(size), body);
  if (size < 192) return join(start, size, body);
  if (size > 8383) return join(start, 255, uint32(size), body);
  return join(start, 192 + ((size - 192) >> 8), (size - 192) & 255, body);
}

/**
 * A packet of partial lengths.
 * @param powers sizes of the parts as powers of two, the first at least 9; the rest of the body is the last part
 */
export function partialPacket(type: number, body: Uint8Array, powers: readonly number[]): Uint8Array {
  const parts: (Uint8Array | number)[] = [0xc0 | type];
  let rest = body;
  for (const power of powers) {
    if (rest.length < 2 ** power) break;
    parts.push(224 + power, rest.subarray(0, 2 ** power));
    rest = rest.subarray(2 ** power);
  }
  if (rest.length < 192) parts.push(rest.length, rest);
  else if (rest.length < 8384) parts.push(192 + ((rest.length - 192) >> 8), (rest.length - 192) & 255, rest);
  else parts.push(255, uint32(rest.length), rest);
  return join(...parts);
}

/** Bytes that look random, of a length, from a seed: faster than an array of arbitraries. */
export function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed | 0) ^ 0x9e3779b9;
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
    bytes[index] = state >>> 16;
  }
  return bytes;
}

const body = (min: number, max: number) =>
  fc.tuple(fc.oneof(fc.integer({ min, max: min + 20 }), fc.integer({ min, max })), fc.nat());

const lengthForm = fc.constantFrom<LengthForm>("old1", "old2", "old4", "new", "new2", "new5");

/** Session-key packet to a key or to nobody named, v3 and v6. */
export const publicKeyPacket: fc.Arbitrary<Uint8Array> = fc
  .tuple(fc.constantFrom(3, 6, 64, 66), body(3, 600), fc.uint8Array({ minLength: 32, maxLength: 32 }), lengthForm)
  .map(([kind, [length, seed], fingerprint, form]) => {
    const recipient =
      kind === 3
        ? join(3, fingerprint.subarray(0, 8))
        : kind === 6
          ? Uint8Array.of(6, 0)
          : kind === 64
            ? join(6, 21, 4, fingerprint.subarray(0, 20))
            : join(6, 33, 6, fingerprint);
    return packet(1, join(recipient, noise(length, seed)), form);
  });

/** Session-key packet to a passphrase, v4, v5 and v6. */
export const passphrasePacket: fc.Arbitrary<Uint8Array> = fc
  .tuple(fc.constantFrom(4, 5, 6), body(6, 90), lengthForm)
  .map(([version, [length, seed], form]) => packet(3, join(version, noise(length, seed)), form));

/** Marker or padding packet. */
export const fillerPacket: fc.Arbitrary<Uint8Array> = fc.oneof(
  lengthForm.map((form) => packet(10, text("PGP"), form)),
  fc.tuple(body(0, 300), lengthForm).map(([[length, seed], form]) => packet(21, noise(length, seed), form)),
);

/** Encrypted-data packet: SEIPD v1 and v2, and packet 20, of one length or of partial ones. */
export const dataPacket: fc.Arbitrary<Uint8Array> = fc
  .tuple(
    fc.constantFrom([18, 1, 41], [18, 2, 76], [20, 1, 56]),
    body(0, 20_000),
    lengthForm,
    fc.boolean(),
    fc.integer({ min: 9, max: 12 }),
    fc.array(fc.nat({ max: 12 }), { maxLength: 6 }),
  )
  .map(([[type, version, minimum], [length, seed], form, partial, first, powers]) => {
    const data = join(version!, noise(minimum! - 1 + length, seed));
    if (!partial) return packet(type!, data, form);
    return partialPacket(type!, data.length < 2 ** first ? join(data, noise(2 ** first, seed)) : data, [
      first,
      ...powers,
    ]);
  });

/** An encrypted message without anything after the data packet. */
export const openPgpMessage: fc.Arbitrary<Uint8Array> = fc
  .tuple(
    fc.array(fillerPacket, { maxLength: 2 }),
    fc.array(fc.oneof({ weight: 3, arbitrary: publicKeyPacket }, { weight: 1, arbitrary: passphrasePacket }), {
      minLength: 1,
      maxLength: 4,
    }),
    fc.array(fillerPacket, { maxLength: 2 }),
    dataPacket,
  )
  .map(([before, keys, between, data]) => join(...before, ...keys, ...between, data));

/** An encrypted message that may end with marker and padding packets. */
export const openPgpMessageWithTrailer: fc.Arbitrary<Uint8Array> = fc
  .tuple(openPgpMessage, fc.array(fillerPacket, { maxLength: 3 }))
  .map(([message, trailer]) => join(message, ...trailer));

/** Base64 without padding, as age headers have it. */
export const unpadded = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64").replaceAll("=", "");

/** Text cut into lines of so many columns, each with its end. */
export const lines = (value: string, columns: number, end: string): string =>
  (value.match(new RegExp(`.{1,${columns}}`, "g")) ?? []).map((line) => line + end).join("");

/** One stanza of an age header. */
export function stanza(args: readonly string[], content: Uint8Array): string {
  const encoded = unpadded(content);
  return `-> ${args.join(" ")}\n${lines(encoded, 64, "\n")}${encoded.length % 64 === 0 ? "\n" : ""}`;
}

/** An age header with its MAC line. */
export const ageHeader = (stanzas: readonly string[], mac = noise(32, 7)): Uint8Array =>
  text(`age-encryption.org/v1\n${stanzas.join("")}--- ${unpadded(mac)}\n`);

const CHUNK = 65_536 + 16;

/** Payload lengths, nonce left out, around all that matters. */
export const agePayloadLength: fc.Arbitrary<number> = fc.oneof(
  fc.constant(16),
  fc.integer({ min: 17, max: 400 }),
  fc.integer({ min: 17, max: CHUNK }),
  fc.tuple(fc.constantFrom(1, 2), fc.integer({ min: 17, max: CHUNK })).map(([chunks, rest]) => chunks * CHUNK + rest),
);

const graphic = fc
  .array(fc.integer({ min: 0x21, max: 0x7e }), { minLength: 1, maxLength: 12 })
  .map((codes) => String.fromCharCode(...codes));

/** An age file. */
export const ageMessage: fc.Arbitrary<Uint8Array> = fc
  .tuple(
    fc.array(
      fc
        .tuple(
          fc.array(graphic, { minLength: 1, maxLength: 4 }),
          fc.oneof(fc.constantFrom(0, 16, 32, 48, 96), fc.nat({ max: 200 })),
          fc.nat(),
        )
        .map(([args, length, seed]) => stanza(args, noise(length, seed))),
      { minLength: 1, maxLength: 4 },
    ),
    agePayloadLength,
    fc.nat(),
  )
  .map(([stanzas, length, seed]) => join(ageHeader(stanzas, noise(32, seed)), noise(16 + length, seed)));

/** OpenPGP armor. */
export interface PgpArmor {
  readonly end: string;
  readonly columns: number;
  readonly headers: readonly string[];
  readonly checksum: string | undefined;
  readonly before: string;
  readonly after: string;
}

/** The usual OpenPGP armor. */
export const PLAIN_ARMOR: PgpArmor = {
  end: "\n",
  columns: 64,
  headers: [],
  checksum: "=AAAA",
  before: "",
  after: "\n",
};

/** OpenPGP armor around a message. */
export function pgpArmor(message: Uint8Array, options: Partial<PgpArmor> = {}): Uint8Array {
  const { end, columns, headers, checksum, before, after } = { ...PLAIN_ARMOR, ...options };
  return text(
    `${before}-----BEGIN PGP MESSAGE-----${end}${headers.map((line) => line + end).join("")}${end}` +
      lines(Buffer.from(message).toString("base64"), columns, end) +
      `${checksum === undefined ? "" : checksum + end}-----END PGP MESSAGE-----${after}`,
  );
}

/** age armor around a file. */
export function ageArmor(file: Uint8Array, end = "\n", after = "\n"): Uint8Array {
  return text(
    `-----BEGIN AGE ENCRYPTED FILE-----${end}${lines(Buffer.from(file).toString("base64"), 64, end)}-----END ` +
      `AGE ENCRYPTED FILE-----${after}`,
  );
}

const space = fc.constantFrom("", "\n", "\r\n", "\n \t\n", "\n\n\n");

/** An armored message. Lines may be cut within groups of four. */
export const armoredOpenPgp: fc.Arbitrary<Uint8Array> = fc
  .record({
    message: openPgpMessageWithTrailer,
    end: fc.constantFrom("\n", "\r\n"),
    columns: fc.oneof(fc.constantFrom(60, 64, 72, 76), fc.integer({ min: 1, max: 76 })),
    headers: fc.subarray(["Version: GnuPG v2", "Comment: für alle", "Comment: ", "Charset:", "X-Y: a: b"]),
    checksum: fc.constantFrom(undefined, "=AAAA", "=n0t-a-checksum!", "="),
    before: space,
    after: space,
  })
  .map(({ message, ...options }) => pgpArmor(message, options));

/** An armored age file. */
export const armoredAge: fc.Arbitrary<Uint8Array> = fc
  .tuple(ageMessage, fc.constantFrom("\n", "\r\n"), space)
  .map(([file, end, after]) => ageArmor(file, end, after));

/** Any valid stream. */
export const validStream: fc.Arbitrary<Uint8Array> = fc.oneof(
  openPgpMessageWithTrailer,
  armoredOpenPgp,
  ageMessage,
  armoredAge,
);

/** A few random changes: bytes replaced, inserted, removed, the end cut off or something put after it. */
export const mutations: fc.Arbitrary<(stream: Uint8Array) => Uint8Array> = fc
  .array(
    fc.record({
      kind: fc.constantFrom("replace", "replace", "insert", "remove", "truncate", "append"),
      // Headers are where most of the grammar is.
      early: fc.boolean(),
      at: fc.nat(),
      value: fc.oneof(fc.nat({ max: 255 }), fc.constantFrom(0x0a, 0x0d, 0x20, 0x2d, 0x3d, 0xca, 0xd2, 0xff, 0xe9)),
    }),
    { minLength: 1, maxLength: 3 },
  )
  .map((changes) => (stream) => {
    let bytes = stream;
    for (const { kind, early, at, value } of changes) {
      const index = at % (Math.min(bytes.length, early ? 200 : bytes.length) + 1);
      const head = bytes.subarray(0, index);
      if (kind === "replace") bytes = index < bytes.length ? join(head, value, bytes.subarray(index + 1)) : bytes;
      else if (kind === "insert") bytes = join(head, value, bytes.subarray(index));
      else if (kind === "remove") bytes = join(head, bytes.subarray(index + 1));
      else if (kind === "truncate") bytes = head;
      else bytes = join(bytes, value);
    }
    return bytes;
  });
