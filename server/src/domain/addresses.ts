import { BlockList, isIP } from "node:net";

/** An IPv4 address mapped into IPv6, as dual-stack sockets give them, back as IPv4. */
export function normalizeAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  return mapped?.[1] ?? address;
}

/** Whether an address is one of, or inside one of, the addresses and CIDR ranges (IPv4 and IPv6). What is no address matches nothing. */
export function addressMatches(address: string, ranges: readonly string[]): boolean {
  const own = normalizeAddress(address);
  const family = isIP(own);
  if (family === 0) return false;
  const list = new BlockList();
  for (const range of ranges) {
    const [base, prefix] = range.split("/", 2) as [string, string | undefined];
    const of = isIP(base) === 6 ? "ipv6" : "ipv4";
    if (isIP(base) === 0) continue;
    if (prefix === undefined) list.addAddress(base, of);
    // The configuration is validated; here so that a mistake there lets nobody in.
    else if (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (of === "ipv6" ? 128 : 32))
      list.addSubnet(base, Number(prefix), of);
  }
  return list.check(own, family === 6 ? "ipv6" : "ipv4");
}
