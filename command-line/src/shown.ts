import { quoted } from "@strongroom/protocol/sizes";

/** What a URL with a password, or a part of one, has in it. */
const SECRETIVE = /:\/\/|@|password=/i;

/**
 * An argument or a variable's value in a message: in quotes, cut to one line. Of a URL only the scheme, since the rest
 * may hold a password.
 */
export function shown(text: string): string {
  return SECRETIVE.test(text) ? `"${/^[a-z][a-z0-9+.-]{0,19}:/i.exec(text)?.[0] ?? ""}..."` : quoted(text);
}

/** A reader's message without the value it repeats, when that may hold a password. */
export function withoutSecret(message: string, text: string): string {
  if (!SECRETIVE.test(text) || message.includes(shown(text))) return message;
  const repeated = /[,;] got /.exec(message);
  if (repeated !== null) return `${message.slice(0, repeated.index)}, got ${shown(text)}`;
  return message;
}
