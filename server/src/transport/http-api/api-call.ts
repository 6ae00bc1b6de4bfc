import type { Call } from "../../calls/call.ts";
import type { RequestHandler } from "../listener.ts";
import type { ApiAnswer, Wording } from "./answers.ts";

/** A call of the HTTP API that was let in. */
export interface ApiCall {
  readonly call: Call;
  readonly params: Readonly<Record<string, string>>;
  /** What is after the `?`. */
  readonly query: URLSearchParams;
  readonly req: Parameters<RequestHandler>[0];
  readonly res: Parameters<RequestHandler>[1];
  /** Ends with the connection, or when the server must not wait any longer. */
  readonly signal: AbortSignal;
}

/** What answers a route. */
export interface ApiRoute {
  readonly answer: (call: ApiCall) => Promise<ApiAnswer>;
  /** The words for what it refuses; undefined for those of the error. */
  readonly wording: (call: ApiCall) => Wording;
}
