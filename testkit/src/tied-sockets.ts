import type { Socket } from "node:net";

/** Lets the two connections of a proxy end together, and keeps both in `open` as long as they live. Errors of a connection are its end. */
export function tieSockets(open: Set<Socket>, client: Socket, upstream: Socket): void {
  for (const socket of [client, upstream]) {
    open.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => {
      open.delete(socket);
      client.destroy();
      upstream.destroy();
    });
  }
}
