import type { ClientOptions } from "@strongroom/client-sdk";
import type { Sdk } from "../context.ts";
import { type Issued, RefreshingToken, tokenLife } from "./refreshing-token.ts";

/** How long the end of a command waits for the end of its session, in milliseconds; it ends by itself in any case. */
export const END_MS = 5_000;

/** Whose session it is, and at which server. */
export interface OwnSessionOptions {
  readonly sdk: Sdk;
  /** The server, and how patient to be with it. */
  readonly server: ClientOptions;
  readonly username: string;
  readonly password: string;
  /** What the session is for. */
  readonly description: string;
  /** For calls beside the login. */
  readonly call: { readonly timeoutMs: number };
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** A session of one command, which is kept in memory only. */
export interface OwnSession {
  /**
   * The token to send with the next call.
   * @param refused one that the server refused: its session ended before its time, as when the server's clock leaps.
   */
  token(refused?: string): Promise<string>;
  /** Ends the session on the server, as far as that can be done quickly. Never throws. */
  end(): Promise<void>;
}

/**
 * Logs in for one command. It renews the session, and logs in again where the server lets it last no longer, or does not
 * know it any more.
 */
export async function openOwnSession(options: OwnSessionOptions): Promise<OwnSession> {
  const { sdk, server, username, password, description, call, now } = options;
  const enter = async (): Promise<Issued> => {
    const client = new sdk.StrongroomClient(server);
    try {
      return await client.login({ username, password, description });
    } finally {
      client.close();
    }
  };
  const renew = async (token: string): Promise<Issued> => {
    const client = new sdk.StrongroomClient({ ...server, token });
    try {
      const renewed = await client.sessions.refreshSession({}, call);
      if (endOf(renewed.token) > endOf(token)) return renewed;
    } catch {
      // The session is gone, or as old as one may become; a password is there.
    } finally {
      client.close();
    }
    return await enter();
  };
  let current = await enter();
  const refreshing = new RefreshingToken({
    read: async () => current.token,
    keep: async (issued) => {
      current = issued;
    },
    renew,
    now,
  });
  return {
    token: async (refused) => await refreshing.get((token) => token === refused),
    async end() {
      const client = new sdk.StrongroomClient({ ...server, token: current.token });
      try {
        await client.sessions.revokeSession({}, { timeoutMs: END_MS });
      } catch {
        // It was ended by somebody else, or the server is away.
      } finally {
        client.close();
      }
    },
  };
}

function endOf(token: string): number {
  return tokenLife(token)?.endsAt ?? Number.POSITIVE_INFINITY;
}
