import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { CommandError } from "@strongroom/command-line/errors";
import { EXIT } from "@strongroom/command-line/exit-codes";

/** A holder needs milliseconds; one that is seen for as long, in milliseconds, died with its lock. */
const STALE_MS = 3_000;
/** How long a lock is waited for, in milliseconds. */
const WAIT_MS = 15_000;
const PAUSE_MS = 20;

/**
 * Runs work that no other process of the same folder runs at the same time. The lock is a file with a name of the
 * holder in it. How long it has been there is measured by the waiter, not by the times of files, which clocks make.
 * @param work is told how to ask whether the lock is still its own: a holder that was stopped for a while was taken for
 *   dead, and must not go on as if nothing had happened.
 * @throws {CommandError} when it is held on and on, each time by another holder.
 */
export async function withLock<T>(path: string, work: (isHeld: () => Promise<boolean>) => Promise<T>): Promise<T> {
  const own = randomUUID();
  await take(path, own);
  try {
    return await work(async () => (await holderOf(path)) === own);
  } finally {
    // Whoever took this one for dead has the lock now.
    if ((await holderOf(path)) === own) await rm(path, { force: true });
  }
}

async function take(path: string, own: string): Promise<void> {
  const began = performance.now();
  let seen: { readonly holder: string | undefined; readonly since: number } | undefined;
  while (!(await create(path, own))) {
    const holder = await holderOf(path);
    const now = performance.now();
    if (now - began > WAIT_MS)
      throw new CommandError(`The lock ${path} is held by other processes.`, EXIT.unexpected, {
        hint: "when no other strongroom runs, remove it",
      });
    if (seen === undefined || seen.holder !== holder) seen = { holder, since: now };
    else if (now - seen.since > STALE_MS) await takeAway(path, holder);
    await sleep(PAUSE_MS + Math.random() * PAUSE_MS);
  }
}

async function create(path: string, own: string): Promise<boolean> {
  const file = await open(path, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "EEXIST") return undefined;
    throw error;
  });
  if (file === undefined) return false;
  try {
    await file.writeFile(own);
    return true;
  } catch (error) {
    // A full disk takes the name of a file and not what is in it: nobody waits for this one to grow old.
    await rm(path, { force: true });
    throw error instanceof Error ? Object.assign(error, { path }) : error;
  } finally {
    await file.close();
  }
}

/** Takes a dead holder's lock away, by a rename that only one of several waiters can do. */
async function takeAway(path: string, holder: string | undefined): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  // Another waiter was faster, and what was moved is its own lock, which holds.
  const moved = await holderOf(aside);
  if (moved !== holder && moved !== undefined) await create(path, moved);
  await rm(aside, { force: true });
}

async function holderOf(path: string): Promise<string | undefined> {
  return await readFile(path, "utf8").catch(() => undefined);
}
