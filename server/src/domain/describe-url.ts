/** A URL for a message: only its scheme, since the rest may hold a password. */
export function describeUrl(text: string): string {
  return `"${/^[a-z0-9+.-]{1,20}:/i.exec(text)?.[0] ?? ""}..."`;
}
