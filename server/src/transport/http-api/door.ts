import { once } from "node:events";
import type http from "node:http";
import { REQUEST_ID_HEADER } from "@strongroom/protocol/headers";
import type { BlobStore } from "../../app/ports/blob-store.ts";
import type { Call } from "../../calls/call.ts";
import type { Calls } from "../../calls/calls.ts";
import { codeOf } from "../../calls/codes.ts";
import type { HttpApiRoute } from "../../calls/routes.ts";
import type { CallHandler } from "../connect-door.ts";
import type { RequestHandler } from "../listener.ts";
import { announcedBytes } from "../request-body.ts";
import { type ApiAnswer, answerTo, refusal } from "./answers.ts";
import type { ApiRoute } from "./api-call.ts";
import { type CollectionRoutesDeps, collectionRoutes } from "./collection-routes.ts";
import { downloadRoute } from "./download-route.ts";
import { findPath } from "./paths.ts";
import { type SessionRoutesDeps, sessionRoutes } from "./session-routes.ts";
import { type UploadRouteDeps, uploadRoute } from "./upload-route.ts";

type Request = Parameters<RequestHandler>[0];
type Response = Parameters<RequestHandler>[1];

/** What the door needs. */
export interface HttpApiDeps extends UploadRouteDeps, SessionRoutesDeps, CollectionRoutesDeps {
  readonly store: BlobStore;
  readonly shutdownSignal: AbortSignal;
  /** Called when a call on a request's connection was authenticated. */
  readonly authenticated: (req: Request) => void;
}

/** The HTTP API of Backup Repository, for clients that exist: a thin layer over the use cases. */
export function httpApiDoor(deps: HttpApiDeps, calls: Calls): CallHandler {
  const routes: Readonly<Record<HttpApiRoute, ApiRoute>> = {
    ...sessionRoutes(deps, calls),
    ...collectionRoutes(deps),
    "POST /api/repository/collection/:id/version": uploadRoute(deps),
    "GET /api/repository/collection/:id/version/:n": downloadRoute(deps),
  };
  return (call, req, res) => void serve(deps, calls, routes, call, req, res);
}

/** The name of a request in the route table; for one that is not there, undefined. */
export function apiMethod(req: Request, path: string): string | undefined {
  return findPath(req.method ?? "", path).route;
}

async function serve(
  deps: HttpApiDeps,
  calls: Calls,
  routes: Readonly<Record<HttpApiRoute, ApiRoute>>,
  call: Call,
  req: Request,
  res: Response,
): Promise<void> {
  const [path, ...query] = (req.url ?? "").split("?");
  const found = findPath(req.method ?? "", path!);
  const gone = new AbortController();
  res.once("close", () => gone.abort(new Error("the connection was closed")));
  res.on("error", () => {});
  const signal = AbortSignal.any([gone.signal, deps.shutdownSignal]);
  const answer = async (): Promise<ApiAnswer> => {
    if (found.route === undefined) {
      calls.draw(call, "requests");
      const allow = found.methods.join(", ");
      return allow === ""
        ? refusal(404, "not found", { code: "unimplemented" })
        : refusal(405, `only ${allow} is answered here`, { code: "unimplemented", headers: { allow } });
    }
    const apiCall = { call, params: found.params, query: new URLSearchParams(query.join("?")), req, res, signal };
    const route = routes[found.route];
    try {
      await calls.admit(call, {
        header: (name) => req.headers[name] as string | undefined,
        query: query.join("?"),
        bodyBytes: announcedBytes(req),
      });
      if (call.principal !== undefined) deps.authenticated(req);
      const encoding = req.headers["content-encoding"] ?? "identity";
      if (encoding !== "identity") return refusal(415, "expected a body without Content-Encoding; send it as it is");
      return await route.answer(apiCall);
    } catch (error) {
      return answerTo(error, route.wording(apiCall));
    }
  };
  const given = await answer();
  const failure = await write(given, call, req, res, gone.signal).catch((error: unknown) => ({ error }));
  const error = failure?.error ?? given.error;
  if (gone.signal.aborted && !res.writableFinished && failure !== undefined)
    calls.end(call, { code: "canceled", message: "the client went away", isFault: false });
  else if (failure !== undefined)
    calls.end(call, { code: codeOf(error) ?? "internal", message: "", error, isFault: codeOf(error) === undefined });
  else {
    const isFault = given.code === "internal" && codeOf(error) === undefined;
    calls.end(call, { code: given.code, message: given.message, error, isFault });
  }
}

/** Writes an answer as fast as the client takes it. @returns what it failed by; undefined for nothing. */
async function write(
  answer: ApiAnswer,
  call: Call,
  req: Request,
  res: Response,
  gone: AbortSignal,
): Promise<{ readonly error: unknown } | undefined> {
  if (gone.aborted) return { error: gone.reason };
  res.statusCode = answer.status;
  res.setHeader("cache-control", "no-store");
  res.setHeader("x-content-type-options", "nosniff");
  res.setHeader(REQUEST_ID_HEADER, call.requestId);
  for (const [name, value] of Object.entries(answer.headers ?? {})) res.setHeader(name, value);
  const { body } = answer;
  if (!(Symbol.asyncIterator in body)) {
    const bytes = Buffer.from(`${JSON.stringify(body)}\n`);
    res.setHeader("content-type", "application/json; charset=utf-8");
    res.setHeader("content-length", String(bytes.length));
    if (req.method === "HEAD") res.end();
    else res.end(bytes);
    return undefined;
  }
  if (req.method === "HEAD") {
    res.end();
    return undefined;
  }
  try {
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      if (!(res as http.ServerResponse).write(chunk)) await once(res, "drain", { signal: gone });
      gone.throwIfAborted();
    }
    res.end();
    return undefined;
  } catch (error) {
    // An answer that ends as if it were whole would be taken for it.
    if ("stream" in res) res.stream.close(2);
    else res.destroy();
    return { error };
  }
}
