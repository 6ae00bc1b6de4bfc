/** Answers that no Strongroom server gave: of a proxy on the way, or of whatever else listens at the address. */
import type { ConnectError } from "@connectrpc/connect";

/** What is known of such an answer. */
export interface ForeignAnswer {
  /** The HTTP status; 200 for a page where a message was expected. */
  readonly status: number;
  /** Who answered, as it calls itself (`nginx/1.22.1`); empty when it does not. */
  readonly server: string;
  /** Where it sends the caller, without a query, which may hold secrets; empty for no redirect. */
  readonly location: string;
  /** Type of its content, for a status of 200. */
  readonly contentType: string;
}

/** The answer that an error was made from, where no Strongroom server gave it; undefined for everything else. */
export function foreignAnswer(error: ConnectError): ForeignAnswer | undefined {
  const status = /^HTTP (\d{3})$/.exec(error.rawMessage)?.[1];
  const contentType = /^unsupported content type (.*)$/.exec(error.rawMessage)?.[1];
  if (status === undefined && contentType === undefined) return undefined;
  return {
    status: Number(status ?? 200),
    server: plain(error.metadata.get("server") ?? ""),
    location: plain((error.metadata.get("location") ?? "").replace(/[?#].*$/, "")),
    contentType: plain(contentType === "null" ? "" : (contentType ?? "")),
  };
}

/** Header values are anybody's: one line of printable characters, and not a long one. */
function plain(value: string): string {
  return value.replace(/[^\x20-\x7e]/g, "?").slice(0, 120);
}

/**
 * Whether the same call may get another answer later: 502, 503 and 504 say that what is behind the proxy is away, which
 * passes; 413, a redirect or a page would come again every time.
 */
export function mayPass({ status }: ForeignAnswer): boolean {
  if (status === 408 || status === 425 || status === 429) return true;
  // 511: a network that wants a login of its own.
  return status >= 500 && status !== 501 && status !== 505 && status !== 511;
}

/** The answer in words, with what to do. */
export function describeAnswer(answer: ForeignAnswer, where: string): string {
  const { status, server, location, contentType } = answer;
  const who = server === "" ? `What answers at ${where}` : `What answers at ${where} (${server})`;
  const code = `(HTTP ${status})`;
  if (status === 200) {
    const what = contentType === "" ? "something without a content type" : `content of type ${contentType}`;
    return (
      `${who} is no Strongroom server: it sent ${what} in the place of an answer. Check the address, and that ` +
      "proxies pass every path on."
    );
  }
  if (status === 413) {
    return (
      `${who} is a proxy that limits how large a request may be ${code}. Take its limit away: ` +
      "`client_max_body_size 0;` in nginx, `LimitRequestBody 0` in Apache."
    );
  }
  if (status >= 300 && status < 400) {
    const to = location === "" ? "elsewhere" : `to ${location}`;
    return (
      `${who} redirects ${to} ${code}, and calls are not redirected. Give the address of the server itself, and ` +
      "exempt it where a proxy wants people to log in."
    );
  }
  if (status === 401 || status === 407 || status === 511) {
    return (
      `${who} is a proxy that wants a login of its own ${code}; the call did not get to a Strongroom server. ` +
      "Exempt the server's address from it."
    );
  }
  if (status === 502 || status === 503 || status === 504)
    return `${who} does not get to the Strongroom server behind it ${code}.`;
  if (status === 400) {
    return (
      `${who} does not take the call ${code}. Check the address: https:// where the port speaks TLS, and a port ` +
      "for HTTP."
    );
  }
  return `${who} refuses the call ${code}, and is no Strongroom server; check the address, and proxies on the way.`;
}
