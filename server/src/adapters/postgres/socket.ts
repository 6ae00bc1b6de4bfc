import { readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { PostgresLocation } from "../../domain/postgres-url.ts";
import { DatabaseUnreachableError } from "./errors.ts";

/**
 * Message that asks for TLS, and its answer:
 * https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
 */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);
const SSL_YES = 0x53;

/**
 * Opens a socket to the server, encrypted where the location says so. The driver would do it as well, but goes on
 * forever where a proxy accepts and closes, and does not say that the server has no TLS.
 * @param timeoutMs for all of it, in milliseconds.
 */
export async function openSocket(location: PostgresLocation, timeoutMs: number): Promise<Socket> {
  const { host, port } = location;
  const socket = host.startsWith("/")
    ? connect({ path: join(host, `.s.PGSQL.${port}`) })
    : connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 });
  const timer = setTimeout(() => socket.destroy(timedOut()), timeoutMs);
  try {
    await happens(socket, "connect");
    return location.tls === "disable" ? socket : await encrypted(socket, location);
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function timedOut(): Error {
  return Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" });
}

async function happens(socket: Socket, event: "connect" | "secureConnect"): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once(event, resolve);
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the server closed the connection")));
  });
}

async function encrypted(socket: Socket, { host, tls, caFile }: PostgresLocation): Promise<TLSSocket> {
  const answer = await new Promise<Buffer>((resolve, reject) => {
    socket.once("data", resolve);
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the server closed the connection")));
    socket.write(SSL_REQUEST);
  });
  // Anything after the one byte was not sent by a server that waits for our handshake.
  if (answer[0] !== SSL_YES || answer.length > 1) {
    throw new DatabaseUnreachableError(
      `the server offers no TLS, and sslmode is ${tls}; switch it on there (ssl = on)`,
      { permanent: true },
    );
  }
  const secure = connectTls({
    socket,
    servername: /^[\d.]+$|:/.test(host) || host.startsWith("/") ? "" : host,
    host,
    rejectUnauthorized: tls === "verify-full",
    ...(caFile === undefined ? {} : { ca: await readFile(caFile) }),
  });
  try {
    await happens(secure, "secureConnect");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (!/CERT|SELF_SIGNED|ALTNAME|UNABLE_TO|SSL/.test(code)) throw error;
    throw new DatabaseUnreachableError(
      `TLS failed: ${(error as Error).message}; check sslrootcert and the name of the host`,
      { cause: error, permanent: true },
    );
  }
  return secure;
}
