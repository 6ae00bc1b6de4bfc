/** Most characters of a text from outside that a log line repeats: as much as a person reads. */
const MAX_TEXT_LENGTH = 500;

/** Most characters of an error's text in an answer. */
export const MAX_ERROR_LENGTH = 1000;

/**
 * Makes one harmless line of a text that may hold what a caller sent: control characters and ends of lines become
 * spaces, lone halves of surrogate pairs are replaced, and what is too long is cut.
 */
export function plainText(text: string, most: number = MAX_TEXT_LENGTH): string {
  const short = text.length > most ? `${text.slice(0, most - 3)}...` : text;
  return short.toWellFormed().replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ");
}

/** An error as it is logged, with its causes; each part bounded. */
export function plainError(error: unknown, causes = 4): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error, message: plainText(String(error)) };
  const { code } = error as NodeJS.ErrnoException;
  return {
    type: error.name,
    message: plainText(error.message, 4 * MAX_TEXT_LENGTH),
    ...(typeof code === "string" ? { code } : {}),
    // Its frames only: what stands before them is the message again.
    stack: (/\n {4}at .*/s.exec(error.stack ?? "")?.[0] ?? "").slice(1, 8 * MAX_TEXT_LENGTH),
    ...(error.cause === undefined || causes === 0 ? {} : { cause: plainError(error.cause, causes - 1) }),
  };
}
