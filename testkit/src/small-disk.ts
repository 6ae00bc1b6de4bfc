import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";

/**
 * A file system of its own with room for so many MiB, unmounted at the end of the test. Undefined, and said loudly,
 * where this user may not mount one: it takes root.
 */
export async function smallDisk(t: ExecutionContext, mebibytes: number): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "strongroom-disk-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m,mode=700`, "tmpfs", folder], { stdio: "pipe" });
  } catch (error) {
    const what = `no file system can be mounted here: ${String((error as { stderr?: unknown }).stderr ?? error).trim()}`;
    t.log(`SKIPPED: ${what}`);
    t.pass();
    return undefined;
  }
  t.teardown(() => void execFileSync("umount", ["--lazy", folder]));
  return folder;
}
