import type { Configuration } from "../../domain/configuration.ts";
import type { ConfigObjects } from "./config-objects.ts";

/** How a source that changes while the server runs stands. */
export interface ConfigStatus {
  /**
   * Why what the source holds now is not in force, with file, line, path and reason; undefined while it is. Never
   * contains a value of a Secret.
   */
  readonly problem: string | undefined;
  /** When the state in force was read, or was last found unchanged after a problem. */
  readonly loadedAt: Date;
  /** How often a change took effect since the start. */
  readonly reloads: number;
  /** How often a change was refused since the start. */
  readonly refusals: number;
}

/** Where users, collections and organizations come from. */
export interface ConfigSource {
  /**
   * The state in force. It is replaced as a whole: what needs consistent values over several steps takes it once
   * ({@link pinned}).
   */
  current(): Configuration;
  /** How the source stands; absent for one that never changes. */
  status?(): ConfigStatus;
  /** Calls this with each state from now on, as it is put in force; absent for a source that never changes. */
  onChange?(listener: (configuration: Configuration) => void): void;
  /** The objects as they are written; absent for a source that does not show them. */
  readonly objects?: ConfigObjects;
}

/** The same dependencies with the configuration of this moment, so that a use case never sees parts of two states. */
export function pinned<D extends { readonly config: ConfigSource }>(deps: D): D {
  const now = deps.config.current();
  const status = deps.config.status?.();
  return { ...deps, config: { current: () => now, ...(status === undefined ? {} : { status: () => status }) } };
}

/**
 * Whether what the configuration in force does not name may be in a newer one, which this server refused or could not
 * read: then it must not conclude that it is gone.
 */
export function isOutdated(config: ConfigSource): boolean {
  return config.status?.().problem !== undefined;
}

/** Time zone of a collection, an IANA name; empty when it is not configured, as one that is frozen. */
export function timezoneOf(config: ConfigSource, collection: string): string {
  return config.current().collections.get(collection)?.timezone ?? "";
}
