import test from "ava";
import { readDocuments } from "../src/objects/document.ts";
import { boundProblem } from "../src/objects/document-bounds.ts";
import { Findings, formatProblem } from "../src/objects/problem.ts";

const MIB = 1024 * 1024;

const levels = (count: number, line: (indent: string) => string) =>
  Array.from({ length: count }, (_, level) => line(" ".repeat(level))).join("\n");

const DEEP: readonly (readonly [string, string])[] = [
  ["lists in flow style", "[".repeat(MIB)],
  ["mappings in flow style", "{".repeat(MIB)],
  ["both", "[a: {".repeat(MIB / 5)],
  ["lists on one line", "- ".repeat(MIB / 2)],
  ["keys that are mappings", "? ".repeat(MIB / 2)],
  ["values without keys", ": ".repeat(MIB / 2)],
  ["mappings by indentation", levels(1000, (indent) => `${indent}a:`)],
  ["lists by indentation", levels(1000, (indent) => `${indent}-`)],
  ["flow in block", `${levels(60, (indent) => `${indent}a:`)} ${"[".repeat(60)}`],
];

for (const [what, text] of DEEP) {
  test(`too deep, and never parsed: ${what}`, (t) => {
    t.regex(boundProblem(text)!.reason, /^expected nested lists and mappings of at most 100 levels, got more$/);
    const findings = new Findings();
    t.deepEqual(readDocuments({ file: "a.yaml", text }, findings), []);
    t.is(findings.problems().length, 1);
  });
}

test("too many parts, tags or anchors are named with their line", (t) => {
  const problem = (text: string) => {
    const findings = new Findings();
    readDocuments({ file: "a.yaml", text }, findings);
    return findings.problems().map(formatProblem);
  };
  t.deepEqual(problem(`a:\n${"- b\n".repeat(MIB / 5)}`), [
    "a.yaml:150001: expected a file of at most 600000 words and signs, got more; split the file",
  ]);
  const marks = "expected at most 1000 tags and anchors, got more; write the values out";
  t.deepEqual(problem(`a:\n${"- &a b\n".repeat(1001)}`), [`a.yaml:1002: ${marks}`]);
  t.deepEqual(problem(`a:\n${"- !a b\n".repeat(1001)}`), [`a.yaml:1002: ${marks}`]);
});

test("what is usual is let through: text with brackets, siblings, documents, and deep but sane objects", (t) => {
  const fine = [
    `a: |\n  ${"[".repeat(1000)}\nb: "${"{".repeat(1000)}" # ${"[".repeat(1000)}`,
    `a:\n${"- [b, {c: d}]\n".repeat(2000)}`,
    `${levels(30, (indent) => `${indent}${indent}a:\n${indent}${indent}- b: 1`)}`,
    "a: {b: [c]}\n---\n".repeat(200),
    levels(90, (indent) => `${indent}a:`),
    `${"[".repeat(90)}${"]".repeat(90)}`,
    "- - - a\n".repeat(500),
  ];
  for (const text of fine) t.is(boundProblem(text), undefined, text.slice(0, 40));
});

test("a field that stands twice is found at any level, without comparing each with each", (t) => {
  const findings = new Findings();
  const many = Array.from({ length: 60_000 }, (_, index) => `  f${index}: 1`).join("\n");
  readDocuments({ file: "a.yaml", text: `a:\n${many}\n  f7: 2\n` }, findings);
  t.deepEqual(findings.problems().map(formatProblem), [
    "a.yaml:60002: not valid YAML: the same field twice in one mapping; remove one",
  ]);
});
