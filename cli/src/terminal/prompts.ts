import { InterruptedError, UsageError } from "@strongroom/command-line/errors";
import { EXIT } from "@strongroom/command-line/exit-codes";
import type { Context } from "../context.ts";

/**
 * Asks a question on the terminal and returns the answer; `hidden` does not show what is typed. Ctrl-C ends the
 * program.
 */
export async function prompt(
  context: Pick<Context, "stdin" | "stderr">,
  question: string,
  options: { hidden?: boolean } = {},
): Promise<string> {
  const { stdin, stderr } = context;
  // Raw mode for both kinds: the terminal itself would show what is typed, and readline keeps a history. Before the
  // question, for whoever is quick.
  stdin.setRawMode?.(true);
  stderr.write(question);
  const typed: string[] = [];
  const show = (text: string) => options.hidden !== true && stderr.write(text);
  try {
    for await (const chunk of stdin.iterator({ destroyOnReturn: false })) {
      for (const character of (chunk as Buffer).toString("utf8")) {
        if (character === "\r" || character === "\n") return typed.join("");
        if (character === "\u0003") throw new InterruptedError("interrupted", EXIT.interrupted);
        if (character === "\u0004") throw new UsageError("No answer was given.");
        if (character === "\u007f" || character === "\b") {
          if (typed.pop() !== undefined) show("\b \b");
        } else if (character === "\u0015") {
          show("\b \b".repeat(typed.length));
          typed.length = 0;
        } else if (character >= " ") {
          typed.push(character);
          show(character);
        }
      }
    }
    throw new UsageError("No answer was given.");
  } finally {
    stdin.setRawMode?.(false);
    stdin.pause();
    stderr.write("\n");
  }
}

/** Asks for yes or no; no unless the answer begins with y. */
export async function confirm(context: Pick<Context, "stdin" | "stderr">, question: string): Promise<boolean> {
  return /^y(es)?$/i.test((await prompt(context, `${question} [y/N] `)).trim());
}
