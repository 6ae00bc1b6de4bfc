import { isIP } from "node:net";
import test from "ava";
import fc from "fast-check";
import { AddressSet, addressMatches, callerAddress, normalizeAddress } from "../src/domain/addresses.ts";

const forms: [string, string][] = [
  ["192.0.2.7", "192.0.2.7"],
  ["::ffff:192.0.2.7", "192.0.2.7"],
  ["::FFFF:192.0.2.7", "192.0.2.7"],
  ["::ffff:c000:207", "192.0.2.7"],
  ["0:0:0:0:0:FFFF:c000:207", "192.0.2.7"],
  ["0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7"],
  ["::ffff:1", "::ffff:1"],
  ["2001:db8::7", "2001:db8::7"],
  ["::1", "::1"],
  ["", ""],
  ["x::ffff:192.0.2.7", "x::ffff:192.0.2.7"],
];

for (const [address, expected] of forms) {
  test(`normalizeAddress(${JSON.stringify(address)})`, (t) => t.is(normalizeAddress(address), expected));
}

const cases: [address: string, ranges: string[], matches: boolean][] = [
  ["192.0.2.7", [], false],
  ["192.0.2.7", ["192.0.2.7"], true],
  ["192.0.2.8", ["192.0.2.7"], false],
  ["192.0.2.7", ["10.0.0.1", "192.0.2.7"], true],
  ["192.0.2.0", ["192.0.2.0/24"], true],
  ["192.0.2.255", ["192.0.2.0/24"], true],
  ["192.0.3.0", ["192.0.2.0/24"], false],
  ["192.0.1.255", ["192.0.2.0/24"], false],
  ["192.0.2.99", ["192.0.2.7/24"], true],
  ["192.0.2.7", ["192.0.2.7/32"], true],
  ["192.0.2.8", ["192.0.2.7/32"], false],
  ["192.0.2.8", ["192.0.2.8/31"], true],
  ["192.0.2.10", ["192.0.2.8/31"], false],
  ["203.0.113.9", ["0.0.0.0/0"], true],
  ["2001:db8::1", ["0.0.0.0/0"], false],
  ["2001:db8::7", ["2001:db8::7"], true],
  ["2001:db8::8", ["2001:db8::7"], false],
  ["2001:DB8:0:0::7", ["2001:db8::7"], true],
  ["2001:db8::7", ["2001:db8::/32"], true],
  ["2001:db8:ffff:ffff::1", ["2001:db8::/32"], true],
  ["2001:db9::1", ["2001:db8::/32"], false],
  ["2001:db8::1", ["2001:db8::2/127"], false],
  ["2001:db8::3", ["2001:db8::2/127"], true],
  ["2001:db8::1", ["::/0"], true],
  ["192.0.2.7", ["2001:db8::/32"], false],
  ["::1", ["127.0.0.1"], false],
  // As dual-stack sockets give IPv4 addresses.
  ["::ffff:192.0.2.7", ["192.0.2.0/24"], true],
  ["::ffff:192.0.3.7", ["192.0.2.0/24"], false],
  ["::ffff:c000:207", ["192.0.2.0/24"], true],
  ["192.0.2.7", ["::ffff:192.0.2.7"], true],
  ["fe80::1%eth0", ["fe80::/10"], true],
  // What is no address matches nothing, and ranges that are none match nobody.
  ["", ["0.0.0.0/0", "::/0"], false],
  ["localhost", ["0.0.0.0/0", "::/0"], false],
  ["192.0.2", ["0.0.0.0/0"], false],
  ["192.0.2.7/32", ["0.0.0.0/0"], false],
  ["192.0.2.007", ["0.0.0.0/0"], false],
  ["192.0.2.7", [""], false],
  ["192.0.2.7", ["example.org"], false],
  ["192.0.2.7", ["example.org/8", "192.0.2.7"], true],
  ["192.0.2.7", ["192.0.2.7/24/24"], false],
  // Everything of one family is nothing of the other.
  ["192.0.2.7", ["::/0"], false],
  ["::ffff:192.0.2.7", ["::/0"], false],
  ["::ffff:c000:207", ["::/0"], false],
  ["192.0.2.7", ["::/8"], false],
  ["192.0.2.7", ["::ffff:0:0/95"], false],
  ["::ffff:192.0.2.7", ["0.0.0.0/0"], true],
  ["192.0.2.7", ["::/0", "0.0.0.0/0"], true],
  // Ranges of mapped addresses.
  ["192.0.2.7", ["::ffff:0:0/96"], true],
  ["192.0.2.7", ["::ffff:192.0.2.0/120"], true],
  ["192.0.3.7", ["::ffff:192.0.2.0/120"], false],
  ["2001:db8::1", ["::ffff:0:0/96"], false],
  // Edges.
  ["0.0.0.0", ["0.0.0.0/0"], true],
  ["255.255.255.255", ["0.0.0.0/0"], true],
  ["255.255.255.255", ["255.255.255.255/32"], true],
  ["::", ["::/0"], true],
  ["::", ["::/128"], true],
  ["::1", ["::/128"], false],
  ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ["::/0"], true],
  ["2001:db8::7", ["2001:db8::7/128"], true],
  ["2001:db8::8", ["2001:db8::7/128"], false],
  // Zones of the caller do not count; those of a range let nobody in.
  ["fe80::1%eth0", ["fe80::1"], true],
  ["fe80::1%eth0", ["fe80::1/128"], true],
  ["fe80::2%eth0", ["fe80::1"], false],
  ["fe80::1", ["fe80::1%eth0"], false],
];

for (const [address, ranges, matches] of cases) {
  test(`${JSON.stringify(address)} ${matches ? "matches" : "does not match"} ${JSON.stringify(ranges)}`, (t) => {
    t.is(addressMatches(address, ranges), matches);
  });
}

/** The bits of an address of groups, highest first. */
const bitsOf = (groups: readonly number[], bitsEach: number): string =>
  groups.map((group) => group.toString(2).padStart(bitsEach, "0")).join("");

const octets = fc.array(fc.nat(255), { minLength: 4, maxLength: 4 });
const words = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 });

/** Changes one bit, so that near misses are met. */
function flip(groups: readonly number[], bit: number, bitsEach: number): number[] {
  return groups.map((group, i) => (i === Math.floor(bit / bitsEach) ? group ^ (1 << (bit % bitsEach)) : group));
}

test("an IPv4 address is in a range when their first bits are equal", (t) => {
  fc.assert(
    fc.property(octets, fc.nat(31), fc.integer({ min: 0, max: 32 }), (base, bit, prefix) => {
      const address = flip(base, bit, 8);
      const expected = bitsOf(address, 8).slice(0, prefix) === bitsOf(base, 8).slice(0, prefix);
      const range = `${base.join(".")}/${prefix}`;
      t.is(addressMatches(address.join("."), [range]), expected);
      t.is(addressMatches(`::ffff:${address.join(".")}`, [range]), expected);
      t.true(addressMatches(base.join("."), [range]));
    }),
    { numRuns: 300 },
  );
});

test("an IPv6 address is in a range when their first bits are equal", (t) => {
  const text = (groups: readonly number[]) => groups.map((group) => group.toString(16)).join(":");
  fc.assert(
    fc.property(words, fc.nat(127), fc.integer({ min: 0, max: 128 }), (base, bit, prefix) => {
      const address = flip(base, bit, 16);
      const expected = bitsOf(address, 16).slice(0, prefix) === bitsOf(base, 16).slice(0, prefix);
      t.is(addressMatches(text(address), [`${text(base)}/${prefix}`]), expected);
      t.true(addressMatches(text(base), [`${text(base)}/${prefix}`]));
    }),
    { numRuns: 300 },
  );
});

test("what is no address never matches and never throws", (t) => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      if (/^[\d.]+$|:/.test(text)) return;
      t.false(addressMatches(text, ["0.0.0.0/0", "::/0"]));
    }),
  );
});

test("a range with a malformed prefix lets nobody in and does not throw", (t) => {
  for (const range of ["10.0.0.0/", "10.0.0.0/33", "10.0.0.0/x", "::/129"])
    t.false(addressMatches("10.0.0.9", [range]));
});

const PROXIES = new AddressSet(["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"]);

const callers: [title: string, connection: string, forwardedFor: string | undefined, caller: string][] = [
  ["no header", "10.0.0.1", undefined, "10.0.0.1"],
  ["an empty header", "10.0.0.1", "", "10.0.0.1"],
  ["one proxy", "10.0.0.1", "192.0.2.7", "192.0.2.7"],
  ["a stranger is not trusted", "192.0.2.9", "192.0.2.7", "192.0.2.9"],
  ["what the caller put in front is not looked at", "10.0.0.1", "203.0.113.1, 192.0.2.7", "192.0.2.7"],
  ["a proxy's address put in front is not either", "10.0.0.1", "10.0.0.9, 192.0.2.7", "192.0.2.7"],
  ["a chain of proxies", "10.0.0.1", "192.0.2.7, 10.0.0.3, 10.0.0.2", "192.0.2.7"],
  ["a chain through a stranger ends there", "10.0.0.1", "203.0.113.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"],
  ["proxies alone: the first of them", "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"],
  ["IPv6", "2001:db8:1::1", "2001:db8:2::7", "2001:db8:2::7"],
  ["IPv6 through IPv4", "10.0.0.1", "2001:db8:2::7, 2001:db8:1::2", "2001:db8:2::7"],
  ["a mapped connection", "::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"],
  ["a mapped entry", "10.0.0.1", "192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7"],
  ["a mapped caller", "10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"],
  ["spaces and tabs", "10.0.0.1", " 192.0.2.7 ,\t10.0.0.2 ", "192.0.2.7"],
  ["a port", "10.0.0.1", "192.0.2.7:51234", "192.0.2.7"],
  ["IPv6 with a port", "10.0.0.1", "[2001:db8:2::7]:51234", "2001:db8:2::7"],
  ["IPv6 in brackets", "10.0.0.1", "[2001:db8:2::7]", "2001:db8:2::7"],
  ["a word at the end", "10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"],
  ["a word behind a proxy", "10.0.0.1", "192.0.2.7, unknown, 10.0.0.2", "10.0.0.2"],
  ["an empty element", "10.0.0.1", "192.0.2.7,", "10.0.0.1"],
  ["half an address", "10.0.0.1", "192.0.2", "10.0.0.1"],
  ["octal digits", "10.0.0.1", "192.0.2.007", "10.0.0.1"],
  ["a range", "10.0.0.1", "192.0.2.7/32", "10.0.0.1"],
  ["a zone", "10.0.0.1", "fe80::1%eth0", "10.0.0.1"],
  ["a quoted value", "10.0.0.1", '"192.0.2.7"', "10.0.0.1"],
  ["Forwarded's form", "10.0.0.1", "for=192.0.2.7", "10.0.0.1"],
  ["brackets that do not close", "10.0.0.1", "[2001:db8:2::7", "10.0.0.1"],
  ["no connection", "", "192.0.2.7", ""],
];

for (const [title, connection, forwardedFor, caller] of callers) {
  test(`the caller behind proxies: ${title}`, (t) => t.is(callerAddress(connection, forwardedFor, PROXIES), caller));
}

test("without trusted proxies the header is never read", (t) => {
  for (const [, connection, forwardedFor] of callers) {
    t.is(callerAddress(connection, forwardedFor, new AddressSet([])), normalizeAddress(connection));
  }
});

test("the caller behind proxies is an address whatever the header holds", (t) => {
  const pieces = fc.constantFrom("10.0.0.2", "192.0.2.7", "::1", ",", " ", "[", "]", ":80", "x", "%", "::ffff:");
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(pieces).map((all) => all.join("")),
      ),
      (header) => {
        t.not(isIP(callerAddress("10.0.0.1", header, PROXIES)), 0);
      },
    ),
  );
});
