import { createHash } from "node:crypto";
import test from "ava";
import fc from "fast-check";
import { compositeSha256, SHA256_BYTES, splitDigests } from "../src/digests.ts";

const sha256 = (...parts: Uint8Array[]) => new Uint8Array(createHash("sha256").update(Buffer.concat(parts)).digest());
const digests = fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 }), { maxLength: 8 });

test("compositeSha256 is the digest of the digests, also of one and of none", (t) => {
  const one = sha256(Buffer.from("segment"));
  t.deepEqual(compositeSha256([one]), sha256(one));
  t.notDeepEqual(compositeSha256([one]), one);
  t.is(
    Buffer.from(compositeSha256([])).toString("hex"),
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
  );
  fc.assert(
    fc.property(digests, (list) => {
      const composite = compositeSha256(new Set(list));
      t.deepEqual(composite, sha256(...list));
      t.true(composite instanceof Uint8Array && !Buffer.isBuffer(composite));
    }),
  );
});

test("compositeSha256 depends on the order", (t) => {
  const [a, b] = [sha256(Buffer.from("a")), sha256(Buffer.from("b"))];
  t.notDeepEqual(compositeSha256([a, b]), compositeSha256([b, a]));
});

test("splitDigests takes joined digests apart, so that the composite digest is that of either form", (t) => {
  fc.assert(
    fc.property(digests, (list) => {
      const joined = Buffer.concat(list);
      t.deepEqual(
        splitDigests(joined).map((digest) => Buffer.from(digest)),
        list.map((digest) => Buffer.from(digest)),
      );
      t.deepEqual(compositeSha256([joined]), compositeSha256(list));
    }),
  );
  t.is(splitDigests(new Uint8Array(2 * SHA256_BYTES - 1)).length, 1);
});
