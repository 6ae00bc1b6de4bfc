import { printable } from "@strongroom/command-line/printable";
import type { Logger } from "pino";
import type { ServerOptions } from "../server-options.ts";
import type { CommandIo } from "./context.ts";

/**
 * Opens the log of a command on standard error.
 * @param how `sync` writes every line before the program goes on, for commands that end.
 */
export async function openLog(
  { logLevel, logFormat }: Pick<ServerOptions, "logLevel" | "logFormat">,
  { stderr }: CommandIo,
  how: { readonly sync: boolean },
): Promise<Logger> {
  const { destination, pino } = await import("pino");
  const isTerminal = (stderr as { isTTY?: boolean }).isTTY === true;
  const asText = logFormat === "text" || (logFormat === "auto" && isTerminal);
  const options = { level: logLevel, base: { service: "strongroom" } };
  if (!asText) return pino(options, destination({ dest: 2, sync: how.sync }));
  return pino(options, { write: (line: string) => void stderr.write(`${logText(line)}\n`) });
}

const LEVELS: Readonly<Record<number, string>> = {
  10: "TRACE",
  20: "DEBUG",
  30: "INFO",
  40: "WARN",
  50: "ERROR",
  60: "FATAL",
};

/** What every line says, or is of no use on a terminal. */
const LEFT_OUT: ReadonlySet<string> = new Set(["level", "time", "msg", "service", "err"]);

/**
 * A line of the log for people: `12:30:05 WARN  login failed  user=alice address=203.0.113.7`, in UTC; stacks on lines
 * of their own. Nothing in it moves the cursor of a terminal.
 */
export function logText(line: string): string {
  const fields = JSON.parse(line) as Record<string, unknown> & { level: number; time: number; msg?: string };
  const facts = Object.entries(fields)
    .filter(([name]) => !LEFT_OUT.has(name))
    .map(([name, value]) => `${name}=${valueText(value)}`);
  const err = fields.err as { message?: string; stack?: string } | undefined;
  const stack = (err?.stack ?? err?.message ?? "").split("\n").filter((text) => text !== "");
  const head = `${new Date(fields.time).toISOString().slice(11, 19)} ${(LEVELS[fields.level] ?? String(fields.level)).padEnd(5)}`;
  const text = [
    `${head} ${fields.msg ?? ""}${facts.length === 0 ? "" : `  ${facts.join(" ")}`}`,
    ...stack.map((s) => `  ${s.trim()}`),
  ];
  return text.map((each) => printable(each)).join("\n");
}

function valueText(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}
