import test from "ava";
import { printable } from "../src/printable.ts";
import { pairs, table } from "../src/table.ts";

test("tables line up, and nothing from a server moves the cursor", (t) => {
  const text = table(
    [{ title: "N", align: "right" }, { title: "NAME" }, { title: "X" }],
    [
      ["7", "ä\u001b[31mred", ""],
      ["12", "b", "y"],
    ],
  );
  t.is(text, [" N  NAME       X", ` 7  ä\u{fffd}[31mred  -`, "12  b          y"].join("\n"));
  t.is(
    pairs([
      ["A", "1"],
      ["Longer", "2"],
      ["No", undefined],
      ["", "3"],
      ["Empty", ""],
    ]),
    "A:       1\nLonger:  2\n         3",
  );
  t.is(printable("a\nb\u202ec", true), "a\nb\u{fffd}c");
});
