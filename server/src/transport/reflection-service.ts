import { Code, type ServiceImpl } from "@connectrpc/connect";
import type {
  ServerReflectionRequest,
  ServerReflection as ServerReflectionV1,
} from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import type {
  ServerReflectionRequest as AlphaRequest,
  ServerReflection as ServerReflectionV1Alpha,
} from "@strongroom/gen/grpc/reflection/v1alpha/reflection_pb";
import type { ReflectionIndex } from "./reflection-index.ts";
import type { ServingState } from "./serving-state.ts";

/** A stream of questions that says nothing for this long is ended, in milliseconds. Nobody had to log in for it. */
const SILENT_STREAM_MS = 60_000;

/** The parts of a request that answers are made from; the same in both versions. */
type Question = ServerReflectionRequest["messageRequest"] | AlphaRequest["messageRequest"];

/** Both versions of server reflection. They differ in nothing but their name. */
export interface ReflectionServices {
  readonly v1: ServiceImpl<typeof ServerReflectionV1>;
  readonly v1alpha: ServiceImpl<typeof ServerReflectionV1Alpha>;
}

/**
 * Server reflection (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md) over an index. What is asked
 * for and not there is answered inside the stream, which goes on.
 * @param serviceNames - full names of the services that are served
 */
export function reflectionServices(
  index: ReflectionIndex,
  serviceNames: readonly string[],
  state: ServingState,
): ReflectionServices {
  const service = [...serviceNames].sort().map((name) => ({ name }));

  const filesOr = (files: Uint8Array[] | undefined, what: string) =>
    files === undefined
      ? notFound(what)
      : { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto: files } };

  function answer(question: Question) {
    switch (question.case) {
      case "listServices":
        return { case: "listServicesResponse" as const, value: { service } };
      case "fileByFilename":
        return filesOr(index.fileByName(question.value), `file ${question.value}`);
      case "fileContainingSymbol":
        return filesOr(index.fileOfSymbol(question.value), `symbol ${question.value}`);
      case "fileContainingExtension": {
        const { containingType, extensionNumber } = question.value;
        const what = `extension ${extensionNumber} of ${containingType}`;
        return filesOr(index.fileOfExtension(containingType, extensionNumber), what);
      }
      case "allExtensionNumbersOfType": {
        const extensionNumber = index.extensionNumbers(question.value);
        if (extensionNumber === undefined) return notFound(`message ${question.value}`);
        const value = { baseTypeName: question.value, extensionNumber };
        return { case: "allExtensionNumbersResponse" as const, value };
      }
      default:
        return refusal(Code.InvalidArgument, "the request asks for nothing; set one of the fields of message_request");
    }
  }

  async function* answers<R extends ServerReflectionRequest | AlphaRequest>(requests: AsyncIterable<R>) {
    const iterator = requests[Symbol.asyncIterator]();
    for (let req = await nextOf(iterator, state); req !== undefined; req = await nextOf(iterator, state)) {
      yield { validHost: req.host, originalRequest: req, messageResponse: answer(req.messageRequest) };
    }
  }
  return {
    v1: { serverReflectionInfo: answers<ServerReflectionRequest> },
    v1alpha: { serverReflectionInfo: answers<AlphaRequest> },
  };
}

function refusal(errorCode: Code, errorMessage: string) {
  return { case: "errorResponse" as const, value: { errorCode, errorMessage } };
}

/** What was asked for comes from outside, so only as much of it is repeated as a person reads. */
function notFound(what: string) {
  return refusal(Code.NotFound, `there is no ${what.slice(0, 300).toWellFormed()} here`);
}

/** The next request; undefined at the end of the stream, after silence, and when the server stops. */
async function nextOf<R>(iterator: AsyncIterator<R>, state: ServingState): Promise<R | undefined> {
  const next = iterator.next();
  next.catch(() => {});
  const waiting = new AbortController();
  try {
    for (const until = performance.now() + SILENT_STREAM_MS; !state.stopping && performance.now() < until; ) {
      const first = await Promise.race([next, state.change(waiting.signal)]);
      if (first !== undefined) return first.done === true ? undefined : first.value;
    }
    return undefined;
  } finally {
    waiting.abort();
  }
}
