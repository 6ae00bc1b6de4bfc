/**
 * Makes text from elsewhere (server, environment) safe to print: control and formatting characters, which could move
 * the cursor or disguise a name, become U+FFFD. Line ends stay when `lines` is set.
 */
export function printable(text: string, lines = false): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, (character) => (lines && character === "\n" ? character : "\u{fffd}"));
}
