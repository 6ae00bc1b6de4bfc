import { BlockList, isIP } from "node:net";

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
 * Whether an address is one of, or inside one of, the addresses and CIDR ranges (IPv4 and IPv6). What is no address matches nothing. `::/0` is every
 * IPv6 address and no IPv4 address; a range of mapped ones (`::ffff:192.0.2.0/120`) is the range of IPv4 addresses. Zones (`%eth0`) do not count.
 */
export function addressMatches(address: string, ranges: readonly string[]): boolean {
  const own = normalizeAddress(address);
  const family = isIP(own);
  if (family === 0) return false;
  const list = new BlockList();
  for (const range of ranges) {
    const [base, prefix, ...rest] = range.split("/") as [string, string | undefined, ...string[]];
    const of = isIP(base) === 6 ? "ipv6" : "ipv4";
    const most = of === "ipv6" ? 128 : 32;
    const bits = prefix === undefined ? most : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
    // The configuration is validated; here so that a mistake there lets nobody in.
    if (isIP(base) === 0 || base.includes("%") || rest.length > 0 || !(bits <= most)) continue;
    // BlockList takes IPv4 addresses for mapped ones, and so for members of every wide IPv6 range.
    if (family === 4 && of === "ipv6" && bits < MAPPED_PREFIX) continue;
    list.addSubnet(base, bits, of);
  }
  return list.check(own, family === 6 ? "ipv6" : "ipv4");
}
