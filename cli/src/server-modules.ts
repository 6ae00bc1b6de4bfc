import { EXIT } from "@strongroom/command-line/exit-codes";
import { CliError } from "./errors.ts";

/** The parts of the server that have commands. Loaded when they are run, so that client commands never load the server. */
const PARTS = {
  serve: () => import("@strongroom/server/commands/serve"),
  sweep: () => import("@strongroom/server/commands/sweep"),
  verify: () => import("@strongroom/server/commands/verify"),
  recover: () => import("@strongroom/server/commands/recover"),
  configuration: () => import("@strongroom/server/commands/configuration"),
  "copy-storage": () => import("@strongroom/server/commands/copy-storage"),
} as const;

/**
 * Loads a part of the server.
 * @throws {CliError} when the server is not installed, as in a package of the client alone.
 */
export async function loadServer<K extends keyof typeof PARTS>(
  part: K,
): Promise<Awaited<ReturnType<(typeof PARTS)[K]>>> {
  try {
    return (await PARTS[part]()) as Awaited<ReturnType<(typeof PARTS)[K]>>;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new CliError("the server is not installed here", EXIT.unexpected, {
      hint: (error as Error).message,
      cause: error,
    });
  }
}
