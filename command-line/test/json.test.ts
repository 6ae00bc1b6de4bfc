import test from "ava";
import { jsonLine, toJson } from "../src/json.ts";

test("every number is a number with all its digits", (t) => {
  t.is(
    toJson({ a: 5n, b: 2n ** 63n - 1n, c: [1n, -1n], d: 1.5, e: null, f: "5" }),
    '{"a":5,"b":9223372036854775807,"c":[1,-1],"d":1.5,"e":null,"f":"5"}',
  );
  t.is(jsonLine({ a: 1n }), '{"a":1}\n');
});
