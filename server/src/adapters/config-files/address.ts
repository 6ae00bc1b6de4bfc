import { BlockList, isIP } from "node:net";
import { quoted, ValueError } from "../../domain/sizes.ts";

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
    throw new ValueError(`${expected}, came ${quoted(text)}`);
  if (prefix === undefined) return range;
  const most = family === 4 ? 32 : 128;
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > most) {
    throw new ValueError(`${expected}, came ${quoted(text)}; the number after "/" goes from 0 to ${most}`);
  }
  // Throws for what the enforcing side could not take either.
  new BlockList().addSubnet(address, Number(prefix), family === 4 ? "ipv4" : "ipv6");
  return range;
}
