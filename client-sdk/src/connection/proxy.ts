/**
 * Proxies of the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, read as curl and Go's net/http read them
 * (https://pkg.go.dev/golang.org/x/net/http/httpproxy), and the tunnel through one (CONNECT, RFC 9110, section 9.3.6).
 */
import http, { type IncomingMessage } from "node:http";
import https from "node:https";
import { BlockList, isIP, type Socket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { InvalidRequestError } from "../errors.ts";

/** How messages about the proxy itself begin. */
export const PROXY_PREFIX = "the proxy ";

/** The variables that name proxies; upper and lower case, as programs set them. */
export type ProxyEnvironment = Readonly<Record<string, string | undefined>>;

/**
 * The proxy for an address, or undefined where it is reached directly. This machine itself is never reached through
 * one.
 *
 * @throws InvalidRequestError when the variable names no `http://` or `https://` proxy; the message does not repeat it
 */
export function proxyFor(url: URL, environment: ProxyEnvironment): URL | undefined {
  const name = url.protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY";
  const given = lookUp(environment, name);
  if (given === undefined || bypasses(url, lookUp(environment, "NO_PROXY") ?? "")) return undefined;
  const text = given.includes("://") ? given : `http://${given}`;
  const proxy = URL.canParse(text) ? new URL(text) : undefined;
  if (proxy !== undefined && loginOf(proxy) === undefined) {
    throw new InvalidRequestError(
      `The name or the password of the proxy in ${name} has a % that begins no %XX; write %25 for it.`,
      { code: "invalid_argument" },
    );
  }
  if (proxy === undefined || !/^https?:$/.test(proxy.protocol) || proxy.hostname === "") {
    throw new InvalidRequestError(
      `Expected a proxy like http://proxy.example.org:3128 in ${name}; SOCKS and other kinds are not supported. ` +
        `Name another proxy, or name ${url.hostname} in NO_PROXY to go without one.`,
      { code: "invalid_argument" },
    );
  }
  return proxy;
}

function lookUp(environment: ProxyEnvironment, name: string): string | undefined {
  // The lower-case name wins, as in curl.
  return environment[name.toLowerCase()]?.trim() || environment[name]?.trim() || undefined;
}

/** Whether `NO_PROXY` names the host: `*`, names with their subdomains, addresses and networks, each with `:port`. */
function bypasses(url: URL, noProxy: string): boolean {
  const host = bareHost(url);
  const port = portOf(url);
  if (host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host)) return true;
  return noProxy
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => {
      if (entry === "*") return true;
      const [, bracketed, rest = ""] = /^\[(.*)\](.*)$/.exec(entry) ?? [];
      const colon = bracketed === undefined && entry.split(":").length === 2 ? entry.lastIndexOf(":") : -1;
      const name = (bracketed ?? (colon < 0 ? entry : entry.slice(0, colon))).toLowerCase();
      const wantedPort = bracketed === undefined ? (colon < 0 ? "" : entry.slice(colon + 1)) : rest.slice(1);
      if (wantedPort !== "" && Number(wantedPort) !== port) return false;
      return isIP(host) === 0 ? matchesName(host, name) : matchesAddress(host, name);
    });
}

function matchesName(host: string, name: string): boolean {
  const suffix = name.replace(/^\*?\./, "");
  return suffix !== "" && (host === suffix || host.endsWith(`.${suffix}`));
}

function matchesAddress(host: string, name: string): boolean {
  const [network = "", bits] = name.split("/");
  const family = isIP(network) === 6 ? "ipv6" : "ipv4";
  const prefix = bits === undefined ? (family === "ipv6" ? 128 : 32) : Number(bits);
  if (isIP(network) === 0 || isIP(network) !== isIP(host)) return false;
  if (!Number.isInteger(prefix) || prefix < 0 || prefix > (family === "ipv6" ? 128 : 32)) return false;
  const list = new BlockList();
  list.addSubnet(network, prefix, family);
  return list.check(host, family);
}

/** Host of an address as sockets want it: an IPv6 address without brackets. */
export function bareHost(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1").toLowerCase();
}

/** Port of an address, also where it is the usual one. */
export function portOf(url: URL): number {
  return url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
}

/**
 * Opens a tunnel through a proxy.
 *
 * @returns the socket on which the other end is the server
 * @throws ConnectError when the proxy refuses; of code `unavailable` when it may do it later
 */
export async function openTunnel(proxy: URL, target: URL, signal: AbortSignal): Promise<Socket> {
  const authority = `${target.hostname}:${portOf(target)}`;
  const headers: Record<string, string> = { host: authority };
  const login = loginOf(proxy) ?? "";
  if (login !== "") headers["proxy-authorization"] = `Basic ${Buffer.from(login).toString("base64")}`;
  const { request } = proxy.protocol === "https:" ? https : http;
  const call = request({
    host: bareHost(proxy),
    port: portOf(proxy),
    method: "CONNECT",
    path: authority,
    headers,
    agent: false,
    signal,
  });
  return await new Promise<Socket>((resolve, reject) => {
    call.once("connect", (answer: IncomingMessage, socket: Socket, head: Buffer) => {
      if (answer.statusCode === 200) {
        if (head.length > 0) socket.unshift(head);
        resolve(socket);
        return;
      }
      socket.destroy();
      reject(refused(proxy, authority, answer.statusCode ?? 0));
    });
    // A proxy that answers CONNECT like another request.
    call.once("response", (answer: IncomingMessage) => {
      answer.destroy();
      reject(refused(proxy, authority, answer.statusCode ?? 0));
    });
    call.on("error", (cause: NodeJS.ErrnoException) => {
      const why = `${PROXY_PREFIX}${nameOf(proxy)} cannot be reached: ${cause.message}`;
      reject(new ConnectError(why, Code.Unavailable, undefined, undefined, cause));
    });
    call.end();
  });
}

/** `NAME:PASSWORD`, empty without either; undefined when they cannot be decoded. */
function loginOf({ username, password }: URL): string | undefined {
  if (username === "" && password === "") return "";
  try {
    return `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  } catch {
    return undefined;
  }
}

/** Its address without a login. */
function nameOf(proxy: URL): string {
  return `${proxy.protocol}//${proxy.host}`;
}

function refused(proxy: URL, authority: string, status: number): ConnectError {
  const hint =
    status === 407
      ? "it asks for a login: put NAME:PASSWORD@ before its host in the variable that names it"
      : "check that it lets connections to this host and port through, or name the host in NO_PROXY";
  const message = `${PROXY_PREFIX}${nameOf(proxy)} does not connect to ${authority} (HTTP ${status}); ${hint}`;
  // 502 to 504: what it looks for is away. Everything else it would say again.
  const mayPass = status === 429 || (status >= 500 && status !== 501 && status !== 505);
  return new ConnectError(message, mayPass ? Code.Unavailable : Code.PermissionDenied);
}
