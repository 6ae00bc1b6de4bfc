import { randomUUID } from "node:crypto";
import type { Principal } from "../domain/access.ts";
import { DomainError } from "../domain/errors.ts";

/** What a caller speaks. */
export type Door = "connect" | "grpc" | "grpc-web" | "http";

/** One call, whatever door it uses. Made from the headers alone, before a byte of its body is read. */
export interface Call {
  readonly door: Door;
  /** Service and method, such as `strongroom.v1.UploadService/CreateUpload`, or the path of a plain HTTP endpoint. */
  readonly method: string;
  /** Network address of the caller. */
  readonly address: string;
  /** Name of the call in logs and errors. */
  readonly requestId: string;
  /** On the monotonic clock, in milliseconds. */
  readonly startedAt: number;
  /** Who calls; undefined for methods that need nobody. Set when the call is admitted, and never else. */
  principal?: Principal;
}

/** What a door knows of a call from its headers. */
export type CallHead = Pick<Call, "door" | "method" | "address"> & {
  /** The caller's own name for the call, as it was sent. */
  readonly requestId: string | undefined;
};

/** Begins a call. */
export function beginCall({ requestId, ...head }: CallHead): Call {
  return { ...head, requestId: acceptedId(requestId) ?? randomUUID(), startedAt: performance.now() };
}

/** The caller of a method that needs one. @throws DomainError AUTHENTICATION_REQUIRED */
export function callerOf(call: Call): Principal {
  // Unreachable after admission; here so that a mistake there denies.
  if (call.principal === undefined) throw authenticationRequired();
  return call.principal;
}

/** The call carries no token. */
export function authenticationRequired(): DomainError {
  return new DomainError(
    "AUTHENTICATION_REQUIRED",
    "send a session token as `Authorization: Bearer <token>`; SessionService.Login gives one",
  );
}

/** A client's own request id, if it is short and harmless in logs. */
function acceptedId(given: string | undefined): string | undefined {
  return given !== undefined && /^[\w.:-]{1,64}$/.test(given) ? given : undefined;
}
