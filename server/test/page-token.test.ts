import test from "ava";
import fc from "fast-check";
import { DomainError } from "../src/domain/errors.ts";
import { pagePosition, pageToken } from "../src/transport/shapes.ts";

/** The lists of the contract, with the form of their positions. */
const LISTS: Readonly<Record<string, RegExp>> = {
  collections: /^.{1,253}$/,
  versions: /^\d{1,19}$/,
  segments: /^\d{1,7}$/,
  digests: /^\d{1,7}$/,
  sessions: /^\d{1,15}\/[0-9a-f]{64}$/,
};

const POSITIONS: Readonly<Record<string, string>> = {
  collections: "x".repeat(253),
  versions: "9223372036854775807",
  segments: "9999999",
  digests: "10000",
  sessions: `1767225600000/${"ab".repeat(32)}`,
};

const refused = { instanceOf: DomainError, message: /was not made by this list/ };

/** A token as only an attacker makes it. */
const forged = (content: unknown) => Buffer.from(JSON.stringify(content)).toString("base64url");

test("no position is no token, and no token is the first page", (t) => {
  t.is(pageToken("versions", undefined), "");
  t.is(pagePosition("versions", "", /^\d+$/), undefined);
});

for (const [list, form] of Object.entries(LISTS)) {
  test(`${list}: a token leads back to its position`, (t) => {
    const position = POSITIONS[list]!;
    const token = pageToken(list, position);
    t.is(pagePosition(list, token, form), position);
    t.regex(token, /^[\w-]{1,1024}$/, "safe in a URL");
  });

  test(`${list}: tokens of other lists are refused`, (t) => {
    for (const other of Object.keys(LISTS).filter((name) => name !== list)) {
      const error = t.throws(() => pagePosition(list, pageToken(other, POSITIONS[list]), form), refused);
      t.is((error as DomainError).reason, "PAGE_TOKEN_INVALID");
    }
  });
}

test("any position of the right form comes back", (t) => {
  const numbers = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
  fc.assert(
    fc.property(numbers, fc.string({ minLength: 1, maxLength: 100 }), (number, name) => {
      t.is(pagePosition("versions", pageToken("versions", String(number)), /^\d{1,19}$/), String(number));
      if (!name.includes("\n")) t.is(pagePosition("names", pageToken("names", name), /^.{1,253}$/su), name);
    }),
  );
});

const garbage: [title: string, token: string][] = [
  ["a text", "garbage"],
  ["no base64", "!!!"],
  ["a path", "../../etc/passwd"],
  ["base64 of nothing readable", Buffer.from([0xff, 0xfe, 0]).toString("base64url")],
  ["a number", forged(5)],
  ["null", forged(null)],
  ["a text in JSON", forged("versions")],
  ["an object", forged({ 0: "versions", 1: "5" })],
  ["no position", forged(["versions"])],
  ["a number as position", forged(["versions", 5])],
  ["null as position", forged(["versions", null])],
  ["a list as position", forged(["versions", ["5"]])],
  ["another form", forged(["versions", "five"])],
  ["an empty position", forged(["versions", ""])],
  ["a negative number", forged(["versions", "-5"])],
  ["a fraction", forged(["versions", "5.5"])],
  ["20 digits", forged(["versions", "1".repeat(20)])],
  ["SQL", forged(["versions", "5; drop table versions"])],
  ["a line after", forged(["versions", "5\n"])],
  ["another list", forged(["collections", "5"])],
  ["a list as the name of the list", forged([["versions"], "5"])],
  ["a long token", forged(["versions", "1".repeat(100_000)])],
  ["half a token", pageToken("versions", "12345").slice(0, 10)],
];

for (const [title, token] of garbage) {
  test(`refused: ${title}`, (t) => {
    const error = t.throws(() => pagePosition("versions", token, /^\d{1,19}$/), refused);
    t.is((error as DomainError).reason, "PAGE_TOKEN_INVALID");
    t.true(error!.message.length < 150, "the token does not come back");
  });
}

test("whatever comes is a position of the right form or refused", (t) => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.base64String(),
        fc.json().map((j) => forged(JSON.parse(j))),
      ),
      (token) => {
        if (token === "") return;
        try {
          t.regex(pagePosition("versions", token, /^\d{1,19}$/)!, /^\d{1,19}$/);
        } catch (error) {
          t.true(error instanceof DomainError && error.reason === "PAGE_TOKEN_INVALID");
        }
      },
    ),
    { numRuns: 500 },
  );
});
