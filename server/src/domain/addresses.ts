import { BlockList, isIP } from "node:net";
import { quoted, ValueError } from "@strongroom/protocol/sizes";

/** IPv4 addresses mapped into IPv6 (RFC 4291, section 2.5.5.2). */
const MAPPED_PREFIX = 96;

/** An IPv4 address mapped into IPv6, as dual-stack sockets give them, back as IPv4. */
export function normalizeAddress(address: string): string {
  const [, dotted, high, low] =
    /^(?:::|(?:0{1,4}:){5})ffff:(?:(\d+\.\d+\.\d+\.\d+)|([\da-f]{1,4}):([\da-f]{1,4}))$/i.exec(address) ?? [];
  if (dotted !== undefined) return dotted;
  if (high === undefined || low === undefined) return address;
  const bytes = [high, low].flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]);
  return bytes.join(".");
}

/**
 * Addresses and CIDR ranges (IPv4 and IPv6). What is no address is in none of them, and what is no range is skipped.
 * `::/0` is every IPv6 address and no IPv4 address; a range of mapped ones (`::ffff:192.0.2.0/120`) is the range of
 * IPv4 addresses. Zones (`%eth0`) do not count.
 */
export class AddressSet {
  readonly #v4 = new BlockList();
  readonly #v6 = new BlockList();

  constructor(ranges: readonly string[]) {
    for (const range of ranges) {
      const [base, prefix, ...rest] = range.split("/") as [string, string | undefined, ...string[]];
      const of = isIP(base) === 6 ? "ipv6" : "ipv4";
      const most = of === "ipv6" ? 128 : 32;
      const bits = prefix === undefined ? most : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
      // The configuration is validated; here so that a mistake there lets nobody in.
      if (isIP(base) === 0 || base.includes("%") || rest.length > 0 || !(bits <= most)) continue;
      if (of === "ipv6") this.#v6.addSubnet(base, bits, of);
      // BlockList takes IPv4 addresses for mapped ones, and so for members of every wide IPv6 range.
      if (of === "ipv4" || bits >= MAPPED_PREFIX) this.#v4.addSubnet(base, bits, of);
    }
  }

  /** Whether the address is one of these. */
  has(address: string): boolean {
    const own = normalizeAddress(address);
    const family = isIP(own);
    return family === 4 ? this.#v4.check(own, "ipv4") : family === 6 && this.#v6.check(own, "ipv6");
  }
}

/** Whether an address is one of, or inside one of, the addresses and CIDR ranges, as {@link AddressSet} reads them. */
export function addressMatches(address: string, ranges: readonly string[]): boolean {
  return new AddressSet(ranges).has(address);
}

/**
 * Checks an IP address (`192.0.2.7`, `2001:db8::7`) or a range of them (`192.0.2.0/24`, `2001:db8::/32`).
 * @returns the text without surrounding spaces, as `net.BlockList` takes it in its two parts.
 * @throws {ValueError}
 */
export function parseAddressRange(text: string): string {
  const range = text.trim();
  const [address = "", prefix, ...rest] = range.split("/");
  const family = isIP(address);
  const expected = "expected an IP address or a range such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32";
  // A zone (fe80::1%eth0) is a name of this machine's interfaces and nothing a request could be compared with.
  if (family === 0 || address.includes("%") || rest.length > 0)
    throw new ValueError(`${expected}, got ${quoted(text)}`);
  if (prefix === undefined) return range;
  const most = family === 4 ? 32 : 128;
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > most) {
    throw new ValueError(`${expected}, got ${quoted(text)}; the number after "/" goes from 0 to ${most}`);
  }
  // Throws for what the enforcing side could not take either.
  new BlockList().addSubnet(address, Number(prefix), family === 4 ? "ipv4" : "ipv6");
  return range;
}

/**
 * The address of a caller. The `X-Forwarded-For` of a trusted proxy is used: each proxy appends the address it was
 * called from, so the list is read from its end, up to the first address that is no trusted proxy. What is before that
 * was sent from outside and is not looked at.
 *
 * @param connection - the other end of the connection
 * @param forwardedFor - the header; undefined when there is none
 * @returns the caller; the last trusted proxy when it names nobody, or something that is no address
 */
export function callerAddress(connection: string, forwardedFor: string | undefined, trusted: AddressSet): string {
  let caller = normalizeAddress(connection);
  for (const entry of (forwardedFor ?? "").split(",").reverse()) {
    if (!trusted.has(caller)) break;
    const address = forwardedAddress(entry.trim());
    if (address === undefined) break;
    caller = address;
  }
  return caller;
}

/** An element of `X-Forwarded-For`: an address, some proxies append a port. */
function forwardedAddress(text: string): string | undefined {
  const address = /^\[([0-9a-f:.]+)\](?::\d{1,5})?$/i.exec(text)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(text)?.[1] ?? text;
  return isIP(address) === 0 || address.includes("%") ? undefined : normalizeAddress(address);
}
