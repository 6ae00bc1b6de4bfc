import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { AddressSet, normalizeAddress } from "../../domain/addresses.ts";

/**
 * Where no webhook goes unless it is allowed: this machine, private networks, what clouds tell their machines
 * (link-local, and the addresses of Azure and Alibaba), and all else that is no host of the internet, by the registries
 * of special addresses of IANA. Ranges that carry IPv4 inside IPv6 are among them, since they lead to any of these.
 */
const FORBIDDEN = new AddressSet([
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "168.63.129.16/32",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.31.196.0/24",
  "192.52.193.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "192.175.48.0/24",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3",
  "::/96",
  "::1/128",
  "64:ff9b::/96",
  "64:ff9b:1::/48",
  "100::/64",
  "2001::/23",
  "2001:db8::/32",
  "2002::/16",
  "3fff::/20",
  "5f00::/16",
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
]);

/** Resolves a name to all its addresses. */
export type Resolve = (host: string) => Promise<readonly { readonly address: string; readonly family: number }[]>;

/** As the system does it, by its configuration and `/etc/hosts`. */
export const systemResolve: Resolve = async (host) => await lookup(host, { all: true, verbatim: true });

/** An address is not to be called. */
export class AddressRefusedError extends Error {
  override name = "AddressRefusedError";
}

/**
 * Finds the address of a host that may be called. Whoever connects uses this address and does not ask again: the next
 * answer of the name server could be another one.
 * @param host name or address, as in `URL.hostname`.
 * @param allowed what may be called although it is no host of the internet.
 * @throws AddressRefusedError when any of its addresses may not be called.
 */
export async function checkedAddress(
  host: string,
  allowed: AddressSet,
  resolve: Resolve = systemResolve,
): Promise<{ readonly address: string; readonly family: 4 | 6 }> {
  const literal = host.replace(/^\[(.*)\]$/, "$1");
  const found = isIP(literal) === 0 ? await resolve(literal) : [{ address: literal, family: isIP(literal) }];
  const [first] = found;
  if (first === undefined) throw new AddressRefusedError("the name has no address");
  for (const { address } of found) {
    const own = normalizeAddress(address);
    if (allowed.has(own) || !(isIP(own) === 0 || own.includes("%") || FORBIDDEN.has(own))) continue;
    throw new AddressRefusedError(
      "its address is one of this machine, a private network or another special range; --notify-allow-addresses " +
        "allows some",
    );
  }
  const address = normalizeAddress(first.address);
  return { address, family: isIP(address) === 6 ? 6 : 4 };
}
