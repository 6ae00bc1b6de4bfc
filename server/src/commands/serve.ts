import { CommandError } from "@strongroom/command-line/errors";
import { EXIT, type ExitCode } from "@strongroom/command-line/exit-codes";
import type { Option } from "@strongroom/command-line/option";
import { connectionLimits } from "../domain/connection-limits.ts";
import type { DatabaseLocation, ServerOptions } from "../server-options.ts";
import type { OperatorCommand, OperatorInvocation } from "./context.ts";
import { DATA, SERVE_OPTIONS, TOKEN_SECRET } from "./options.ts";
import { serverOptions } from "./settings.ts";

/** `strongroom serve`: runs until SIGTERM or SIGINT. Exit code 0 after a graceful stop, 1 when it could not start. */
export const serve: OperatorCommand = {
  name: "serve",
  summary: "run the server",
  details: "Connect, gRPC and gRPC-Web over HTTP/1.1 and HTTP/2 on one port, until SIGTERM or Ctrl-C.",
  options: SERVE_OPTIONS,
  secrets: [TOKEN_SECRET],
  examples: [
    ["strongroom init && strongroom serve", "a first server"],
    ["strongroom serve --data /var/lib/strongroom --listen 127.0.0.1:9000", "with its data in another place"],
    ["strongroom serve --config /etc/strongroom --storage file:///backup/strongroom", "with a storage directory"],
    [
      "strongroom serve --database postgres://strongroom@localhost/strongroom --database-password-file " +
        "/etc/strongroom/database-password",
      "on a PostgreSQL server",
    ],
    [
      'strongroom serve --storage "s3://backups/strongroom?endpoint=https://s3.example.org&region=eu-1&pathStyle=true"',
      "with storage in S3",
    ],
    [
      "strongroom serve --listen 0.0.0.0:8443 --tls-cert /etc/strongroom/tls.pem --tls-key /etc/strongroom/tls.key",
      "for other machines, with TLS",
    ],
  ],
  run,
};

async function run({ values, context }: OperatorInvocation): Promise<ExitCode> {
  const options = await serverOptions(values, context.env);
  const [{ openLog }, { openParts, startServer }, { TlsFiles }, { fileLimit }] = await Promise.all([
    import("./log.ts"),
    import("../main.ts"),
    import("../adapters/tls-files/tls-files.ts"),
    import("../adapters/process/file-limit.ts"),
  ]);
  const log = await openLog(options, context, { sync: false });
  let server: Awaited<ReturnType<typeof startServer>>;
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
      const { host, port, trustedProxies, corsOrigins, genericStreams } = options;
      server = await startServer(parts, host, port, {
        tls,
        trustedProxies,
        corsOrigins,
        genericStreams,
        connectionLimits: limits,
      });
    } catch (error) {
      await parts.config.close();
      await parts.store.close();
      await parts.database.close();
      throw error;
    }
  } catch (error) {
    log.flush();
    throw new CommandError(`cannot start: ${startupMessage(error, options)}`, EXIT.unexpected, { cause: error });
  }
  // Before it says that it runs, and may be stopped.
  const stopping = stopSignal();
  const where = await places(options, values);
  context.stdout.write(`Strongroom listens on ${server.url} with ${where.text}\n`);
  log.info({ url: server.url, ...where.fields }, "listening");
  const signal = await stopping;
  log.info({ signal, grace_ms: options.shutdownGraceMs }, "stopping: running calls may end, new uploads are refused");
  try {
    await server.stop(options.shutdownGraceMs);
    log.info({}, "stopped");
  } finally {
    log.flush();
  }
  return EXIT.ok;
}

/** Where the data is, and what of it nobody chose: a variable that was lost on the way shows itself by that. */
async function places(options: ServerOptions, values: OperatorInvocation["values"]) {
  const { describeStorage } = await import("../adapters/stores.ts");
  const [database, storage] = [describeDatabase(options.database), describeStorage(options.storage)];
  const chosen = (option: Option<unknown>) => (values.source(option) === "default" ? " (default)" : "");
  return {
    text: `the database ${database}${chosen(DATA.database)} and the storage ${storage}${chosen(DATA.storage)}`,
    fields: { database, storage, config: options.configDir },
  };
}

function describeDatabase(database: DatabaseLocation): string {
  if (database.kind === "pglite") return `pglite:${database.directory ?? "memory"}`;
  const { user, host, port, database: name } = database.location;
  const at = host.startsWith("/") ? "" : host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  return `postgres://${user === undefined ? "" : `${user}@`}${at}/${name}${at === "" ? `?host=${host}` : ""}`;
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
