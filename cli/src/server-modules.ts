import { HAS_SERVER } from "./build.ts";
import type { CommandSpec } from "./command.ts";

/**
 * The commands of the server. Only their declarations are loaded here: what a command does is loaded when it runs.
 * Undefined where the server is not installed, as in a package of the client alone.
 */
export async function serverCommands(): Promise<readonly CommandSpec[] | undefined> {
  if (!HAS_SERVER) return undefined;
  try {
    const { COMMANDS } = await import("@strongroom/server/commands/index");
    return COMMANDS;
  } catch (error) {
    if (!isMissing(error)) throw error;
    return undefined;
  }
}

/** Whether it is the server itself that is not there, rather than something it needs. */
function isMissing(error: unknown): boolean {
  return (
    error instanceof Error &&
    (error as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND" &&
    error.message.includes("@strongroom/server")
  );
}
