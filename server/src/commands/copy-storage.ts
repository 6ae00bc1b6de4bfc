import { formatSize } from "@strongroom/protocol/sizes";
import { openStore, parseStorage, type StorageLocation } from "../adapters/stores.ts";
import { InstallationMismatchError } from "../app/installation.ts";
import { type BlobStore, BlobStoreError } from "../app/ports/blob-store.ts";
import { type CopiedObject, CopyRefusedError, copyStorage } from "../app/upkeep/copy-storage.ts";
import type { CommandIo } from "./configuration.ts";

/** What the command is told. */
export interface CopyStorageOptions {
  /** Storage URLs. */
  readonly from: string;
  readonly to: string;
  /** Print one JSON object at the end instead of text. */
  readonly json: boolean;
  /** No line for each object. */
  readonly quiet: boolean;
}

/**
 * `strongroom copy-storage`: copies an installation's storage to another place.
 * @returns the exit code: 0 when everything is in the target, 1 when something failed, 2 for wrong options.
 * @throws the reason of the signal.
 */
export async function copyStorageCommand(
  options: CopyStorageOptions,
  io: CommandIo,
  signal: AbortSignal,
): Promise<number> {
  const say = (text: string) => io.stderr.write(`strongroom copy-storage: ${text}\n`);
  const places: StorageLocation[] = [];
  for (const name of ["from", "to"] as const) {
    try {
      places.push(parseStorage(options[name]));
    } catch (error) {
      say(`--${name}: ${(error as Error).message}`);
      return 2;
    }
  }
  const [from, to] = places as [StorageLocation, StorageLocation];
  const opened: BlobStore[] = [];
  try {
    const log = { info: (_fields: Record<string, unknown>, message: string) => !options.quiet && say(message) };
    for (const place of [from, to]) opened.push(await openStore(place, log));
    const onObject = (object: CopiedObject) => {
      if (!options.quiet || object.outcome === "failed") io.stderr.write(`${describe(object)}\n`);
    };
    const report = await copyStorage({ from: opened[0]!, to: opened[1]!, signal, onObject });
    const { installation, copied, present, failed, bytes, pending } = report;
    if (options.json) {
      const all = { installation, copied, present, failed, bytes: String(bytes), pending };
      io.stdout.write(`${JSON.stringify(all)}\n`);
    } else {
      io.stdout.write(
        `${failed === 0 ? "Everything is in the target" : "NOT COMPLETE"}: ${copied} objects copied (${formatSize(bytes)}), ${present} were there, ${failed} failed\n`,
      );
    }
    if (pending > 0) say(`${pending} unfinished uploads were not copied; their clients begin anew`);
    if (failed > 0) say("run the same command again; what is in the target already is passed over");
    return failed === 0 ? 0 : 1;
  } catch (error) {
    if (signal.aborted) {
      say("stopped; run the same command again to go on");
      throw error;
    }
    const known = [CopyRefusedError, InstallationMismatchError, BlobStoreError].some((kind) => error instanceof kind);
    if (!known && (error as Error).name !== "FileLockedError") throw error;
    say((error as Error).message);
    return 1;
  } finally {
    for (const store of opened) await store.close();
  }
}

function describe({ key, size, outcome, verified, problem }: CopiedObject): string {
  if (outcome === "failed") return `FAILED   ${key}: ${problem}`;
  if (outcome === "present") return `present  ${key}`;
  return `copied   ${key} (${formatSize(size)}${verified ? ", digests verified" : ""})`;
}
