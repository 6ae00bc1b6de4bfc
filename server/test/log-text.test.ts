import test from "ava";
import { pino } from "pino";
import { logText } from "../src/commands/log.ts";

function linesOf(write: (log: ReturnType<typeof pino>) => void): string[] {
  const lines: string[] = [];
  write(pino({ base: { service: "strongroom" } }, { write: (line) => void lines.push(logText(line)) }));
  return lines;
}

test("a line is time, level, message and facts", (t) => {
  const [line] = linesOf((log) =>
    log.warn({ user: "alice", n: 5, size: 10n, list: [1], text: "two words" }, "login failed"),
  );
  t.regex(line!, /^\d\d:\d\d:\d\d WARN {2}login failed {2}user=alice n=5 size=10 list=\[1\] text="two words"$/);
});

test("a stack has lines of its own, and nothing moves the cursor", (t) => {
  const [line] = linesOf((log) => log.error({ err: new Error("broken\u001b[2J"), name: "a\u001bb\nc" }, "x\u202ey"));
  const [first, second, third] = line!.split("\n");
  t.regex(first!, /ERROR x\u{fffd}y {2}name="a\\u001bb\\nc"$/u);
  t.regex(second!, /^ {2}Error: broken\u{fffd}\[2J$/u);
  t.regex(third!, /^ {2}at /);
});
