/** Opens sockets to a server: directly or through a proxy, with TLS for `https`. */
import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls, type SecureContext, type TLSSocket } from "node:tls";
import { bareHost, openTunnel, portOf } from "./proxy.ts";

/** Where a socket leads, and how. */
export interface Destination {
  /** Address of the server. */
  readonly url: URL;
  /** Proxy on the way; undefined for none. */
  readonly proxy: URL | undefined;
  /** Authorities and certificate for `https`; undefined: what Node.js trusts. */
  readonly secureContext: SecureContext | undefined;
}

/**
 * Opens a socket that is ready to be written to; with TLS, after the handshake. It never throws an error that nobody
 * listens to: a socket may fail between two listeners, and after everybody has lost interest.
 *
 * @param protocols - names to offer in TLS (ALPN), the preferred first
 * @param signal - gives up; its reason is thrown
 * @throws the system's error, or the ConnectError of a proxy
 */
export async function dial(
  { url, proxy, secureContext }: Destination,
  protocols: string[],
  signal: AbortSignal,
): Promise<Socket> {
  signal.throwIfAborted();
  const host = bareHost(url);
  const raw =
    proxy === undefined
      ? connect({ host, port: portOf(url), noDelay: true })
      : await openTunnel(proxy, url, signal).catch((error: unknown) => {
          signal.throwIfAborted();
          throw error;
        });
  raw.on("error", () => undefined);
  if (url.protocol !== "https:") return proxy === undefined ? await opened(raw, "connect", signal) : raw;
  const secure = connectTls({
    socket: raw,
    host,
    ALPNProtocols: protocols,
    minVersion: "TLSv1.2",
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(secureContext === undefined ? {} : { secureContext }),
  });
  secure.on("error", () => undefined);
  // An error of the socket below is not always passed on by TLS that has not begun.
  const failed = (error: Error) => secure.destroy(error);
  raw.once("error", failed);
  return await opened<TLSSocket>(secure, "secureConnect", signal).finally(() => raw.off("error", failed));
}

function opened<S extends Socket>(socket: S, event: string, signal: AbortSignal): Promise<S> {
  return new Promise<S>((resolve, reject) => {
    const settle = (act: () => void) => {
      signal.removeEventListener("abort", onAbort);
      socket.off(event, onOpen).off("error", onError).off("close", onClose);
      act();
    };
    const onOpen = () => settle(() => resolve(socket));
    const onError = (error: Error) => settle(() => reject(error));
    const onClose = () => settle(() => reject(closedEarly()));
    const onAbort = () =>
      settle(() => {
        socket.destroy();
        reject(signal.reason);
      });
    socket.once(event, onOpen).once("error", onError).once("close", onClose);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

/** An end that came without an error. */
export function closedEarly(): Error {
  return Object.assign(new Error("the connection was closed before anything was received"), { code: "ECONNRESET" });
}
