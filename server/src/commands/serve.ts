import { destination, pino } from "pino";
import { fileLimit } from "../adapters/process/file-limit.ts";
import { TlsFiles } from "../adapters/tls-files/tls-files.ts";
import { connectionLimits } from "../domain/connection-limits.ts";
import { openParts, type RunningServer, startServer } from "../main.ts";
import type { ServerOptions } from "../server-options.ts";
import { parseOptions, serveHelp, UsageError } from "./options.ts";

/**
 * `strongroom serve`: runs until SIGTERM or SIGINT.
 * @returns the exit code: 0 after a graceful stop, 1 when it could not start, 2 for wrong options.
 */
export async function serve(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  let options: ServerOptions | "help";
  try {
    options = parseOptions(args, env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`strongroom serve: ${error.message}\n`);
    return 2;
  }
  if (options === "help") {
    process.stdout.write(serveHelp());
    return 0;
  }
  const log = pino({ level: options.logLevel, base: { service: "strongroom" } }, destination({ dest: 2, sync: false }));
  let server: RunningServer;
  // From the start on, since without a handler the signal would end the process.
  let reload = () => {};
  process.on("SIGHUP", () => reload());
  try {
    const files = fileLimit();
    const limits = connectionLimits(files, options.maxConnections, options.maxConnectionsPerAddress);
    log.info(
      { files: files ?? "unlimited", connections: limits.total, per_address: limits.perHolder },
      "connections are limited",
    );
    const tls = options.tls === undefined ? undefined : await TlsFiles.open(options.tls);
    const parts = await openParts(options, log);
    parts.config.watch({ pollMs: options.configPollMs, log });
    reload = () => void parts.config.reload(true);
    try {
      const { host, port, trustedProxies } = options;
      server = await startServer(parts, host, port, { tls, trustedProxies, connectionLimits: limits });
    } catch (error) {
      await parts.config.close();
      await parts.store.close();
      await parts.database.close();
      throw error;
    }
  } catch (error) {
    log.flush();
    process.stderr.write(`strongroom serve: cannot start: ${startupMessage(error, options)}\n`);
    return 1;
  }
  // Before anybody is told that it runs, and may stop it.
  const stopping = stopSignal();
  process.stdout.write(`Strongroom listens on ${server.url}\n`);
  log.info({ url: server.url }, "listening");
  const signal = await stopping;
  log.info({ signal, grace_ms: options.shutdownGraceMs }, "stopping: running calls may end, new uploads are refused");
  try {
    await server.stop(options.shutdownGraceMs);
    log.info({}, "stopped");
  } finally {
    log.flush();
  }
  return 0;
}

async function stopSignal(): Promise<NodeJS.Signals> {
  const signals = ["SIGTERM", "SIGINT"] as const;
  return await new Promise((resolve) => {
    const stop = (signal: NodeJS.Signals) => {
      // A second signal ends the process at once, as without a handler.
      for (const each of signals) process.off(each, stop);
      resolve(signal);
    };
    for (const each of signals) process.on(each, stop);
  });
}

function startupMessage(error: unknown, options: ServerOptions): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "EADDRINUSE")
    return `${options.host}:${options.port} is in use by another program; choose another with --listen`;
  if (code === "EACCES" && (error as NodeJS.ErrnoException).syscall === "listen") {
    return `no permission to listen on ${options.host}:${options.port}; choose a port above 1023`;
  }
  return error instanceof Error ? error.message : String(error);
}
