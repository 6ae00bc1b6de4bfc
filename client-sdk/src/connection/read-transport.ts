/**
 * ReadVersion without the copies: chunks go from the HTTP/2 stream past the library to whoever reads the version, and
 * everything else through it (see `chunk-detour.ts` in protocol).
 */
import { once } from "node:events";
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextKey,
  createContextKey,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import type { UniversalClientFn, UniversalClientRequest, UniversalClientResponse } from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-connect";
import { type ReadVersionResponse, VersionService } from "@strongroom/gen/strongroom/v1/version_service_pb";
import { ChunkDetour, type ReceivedPieces } from "@strongroom/protocol/chunk-detour";
import type { SessionManager } from "./session-manager.ts";

/** The address, connection and interceptors of the stock transport. */
export interface ReadTransportOptions {
  /** Address of the server. */
  readonly baseUrl: string;
  /** The connection. */
  readonly manager: SessionManager;
  /** The same as those of the stock transport. */
  readonly interceptors: Interceptor[];
  /** The largest message that is taken, in bytes. */
  readonly readMaxBytes: number;
}

/** The stock transport, with another way for the chunks of ReadVersion. */
export function withFastReads(stock: Transport, options: ReadTransportOptions): Transport {
  const stream: Transport["stream"] = async (method, signal, timeoutMs, header, input, contextValues) => {
    const given = [signal, timeoutMs, header, input, contextValues] as const;
    if ((method as DescMethod) !== VersionService.method.readVersion) return await stock.stream(method, ...given);
    const call: Call = {};
    const transport = createTransport({
      ...options,
      httpClient: overHttp2(options, call),
      useBinaryFormat: true,
      acceptCompression: [],
      sendCompression: null,
      compressMinBytes: Number.MAX_SAFE_INTEGER,
      writeMaxBytes: options.readMaxBytes,
    });
    const response = await transport.stream(method, ...given);
    const messages = response.message as unknown as AsyncIterable<ReadVersionResponse>;
    const filled = contextValues?.get(TAKES_PIECES) === true ? withDetours : withChunks;
    return { ...response, message: filled(messages, call) as unknown as typeof response.message };
  };
  return { unary: stock.unary.bind(stock), stream };
}

/** A call under way. */
interface Call {
  detour?: ChunkDetour;
  signal?: AbortSignal | undefined;
}

/**
 * For the context of a call: its chunks are taken by {@link receivedOf}, without copies, and are empty in its messages.
 * Everything that breaks a call off is thrown by its messages then too.
 */
export const TAKES_PIECES: ContextKey<boolean> = createContextKey(false);

/** Where the bytes of a message are that has an empty chunk in their place. */
const DETOURS = new WeakMap<ReadVersionResponse, ChunkDetour>();

/**
 * The next bytes of the chunk in a message of a call with {@link TAKES_PIECES}; undefined at its end, and where all
 * bytes are in the message. To be asked until then, before the next message.
 */
export async function receivedOf(message: ReadVersionResponse): Promise<ReceivedPieces | undefined> {
  return await DETOURS.get(message)?.received();
}

/** Notes where the bytes of stand-ins are. */
async function* withDetours(
  messages: AsyncIterable<ReadVersionResponse>,
  call: Call,
): AsyncGenerator<ReadVersionResponse> {
  for await (const message of messages) {
    if (call.detour !== undefined && message.frame.case === "chunk") DETOURS.set(message, call.detour);
    yield message;
  }
}

/** Puts the bytes in the place of their stand-ins, each piece in a message of its own. */
async function* withChunks(
  messages: AsyncIterable<ReadVersionResponse>,
  call: Call,
): AsyncGenerator<ReadVersionResponse> {
  for await (const message of messages) {
    const pieces = message.frame.case === "chunk" ? call.detour?.chunk() : undefined;
    if (pieces === undefined) yield message;
    else for await (const value of mapped(pieces, call.signal)) yield { ...message, frame: { case: "chunk", value } };
  }
}

/** Sends a call and gives its answer, whose chunks take the detour. */
function overHttp2({ manager, readMaxBytes }: ReadTransportOptions, call: Call): UniversalClientFn {
  return async (request: UniversalClientRequest): Promise<UniversalClientResponse> => {
    request.signal?.throwIfAborted();
    const { pathname, search } = new URL(request.url);
    const stream = await manager.request(request.method, pathname + search, Object.fromEntries(request.header), {});
    // What goes wrong is told by the answer or by its bytes.
    stream.on("error", () => {});
    const cancel = () => stream.close(constants.NGHTTP2_CANCEL);
    request.signal?.addEventListener("abort", cancel, { once: true });
    if (request.signal?.aborted === true) cancel();
    stream.once("close", () => request.signal?.removeEventListener("abort", cancel));
    for await (const piece of request.body ?? []) stream.write(piece);
    stream.end();
    const headers = await answered(stream, request.signal);
    const header = new Headers();
    for (const [name, value] of Object.entries(headers)) {
      if (value !== undefined && !name.startsWith(":")) header.set(name, String(value));
    }
    const bounds = { mostMessageBytes: readMaxBytes, mostChunkBytes: readMaxBytes, onBytes: () => {}, reuse: false };
    const detour = new ChunkDetour(stream, bounds);
    call.detour = detour;
    call.signal = request.signal;
    const body = mapped(detour.envelopes(), request.signal, () => {
      if (!stream.closed) cancel();
    });
    return { status: Number(headers[":status"]), header, body, trailer: new Headers() };
  };
}

async function answered(
  stream: ClientHttp2Stream,
  signal: AbortSignal | undefined,
): Promise<IncomingHttpHeaders & { ":status"?: number }> {
  const ended = new AbortController();
  const closed = () => ended.abort();
  stream.once("close", closed);
  try {
    const [headers] = (await once(stream, "response", { signal: ended.signal })) as [IncomingHttpHeaders];
    return headers;
  } catch (error) {
    throw broken(ended.signal.aborted ? closedBy(stream) : error, signal);
  } finally {
    stream.off("close", closed);
  }
}

const closedBy = (stream: ClientHttp2Stream) =>
  new Error(`the stream was closed by the server (code ${stream.rstCode})`);

/** What the connection fails by, as an error of the call; it may be made again. */
function broken(error: unknown, signal: AbortSignal | undefined): ConnectError {
  if (signal?.aborted === true) return ConnectError.from(signal.reason, Code.Canceled);
  return ConnectError.from(error, Code.Unavailable);
}

async function* mapped(
  pieces: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
  atEnd: () => void = () => {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  try {
    for await (const piece of pieces) yield piece as Uint8Array<ArrayBuffer>;
  } catch (error) {
    throw broken(error, signal);
  } finally {
    atEnd();
  }
}
