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

/** grpcurl against one server. The token is in the environment, requests come on standard input. */
export class Grpcurl {
  readonly #flags: readonly string[];
  readonly #host: string;
  /** Of the session, once there is one. */
  token = "";

  constructor(flags: readonly string[], host: string) {
    this.#flags = flags;
    this.#host = host;
  }

  /** Runs grpcurl. */
  async raw(flags: readonly string[], rest: readonly string[], input = "") {
    const args = [...this.#flags, ...flags, this.#host, ...rest];
    return await run(requirePeer("grpcurl"), args, { input, env: { TOKEN: this.token } });
  }

  // biome-ignore lint/suspicious/noExplicitAny: answers as JSON
  async call(t: ExecutionContext, method: string, ...messages: unknown[]): Promise<any> {
    const outcome = await this.#call(method, messages);
    t.is(outcome.code, 0, outcome.stderr);
    return JSON.parse(outcome.stdout.toString());
  }

  /** The status of a refused call, as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: answers as JSON
  async refused(t: ExecutionContext, method: string, message: unknown): Promise<any> {
    const outcome = await this.#call(method, [message]);
    t.not(outcome.code, 0);
    const {
      code,
      message: text,
      details,
    } = JSON.parse(outcome.stderr) as {
      code: number;
      message: string;
      details: { "@type": string }[];
    };
    const named = details.map((each) => [each["@type"].replace("type.googleapis.com/google.rpc.", ""), each]);
    return { code, message: text, ...Object.fromEntries(named) };
  }

  async #call(method: string, messages: readonly unknown[]) {
    const header = ["-expand-headers", "-H", `Authorization: Bearer \${TOKEN}`];
    const input = messages.map((message) => JSON.stringify(message)).join("\n");
    return await this.raw(["-format-error", ...header, "-d", "@"], [`strongroom.v1.${method}`], input);
  }
}
