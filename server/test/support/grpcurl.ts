import { requirePeer } from "@strongroom/testkit/peers/programs";
import { run, type ServerProcess } from "@strongroom/testkit/processes";
import type { ExecutionContext } from "ava";

/** The real grpcurl against a server without TLS. The token is in the environment, requests come on standard input. */
export class GrpcurlCalls {
  readonly #host: string;
  token = "";

  constructor(server: Pick<ServerProcess, "url">) {
    this.#host = new URL(server.url).host;
  }

  /** The answer to a call, as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: answers as JSON
  async call(t: ExecutionContext, method: string, message: unknown = {}): Promise<any> {
    const { code, stdout, stderr } = await this.#run(method, message);
    t.is(code, 0, stderr);
    return JSON.parse(stdout.toString());
  }

  /** The reason of a refused call. */
  async refusal(method: string, message: unknown = {}): Promise<string | undefined> {
    const { code, stderr } = await this.#run(method, message);
    if (code === 0) return undefined;
    const { details = [] } = JSON.parse(stderr) as { details?: { reason?: string }[] };
    return details.find(({ reason }) => reason !== undefined)?.reason;
  }

  async #run(method: string, message: unknown) {
    const header = ["-expand-headers", "-H", `Authorization: Bearer \${TOKEN}`];
    const args = ["-plaintext", "-format-error", ...header, "-d", "@", this.#host, `strongroom.v1.${method}`];
    return await run(requirePeer("grpcurl"), args, { input: JSON.stringify(message), env: { TOKEN: this.token } });
  }
}
