import { accessSync, constants } from "node:fs";
import { tmpdir } from "node:os";

/**
 * Where scenarios put their directories: in memory where the system offers that, since thousands of them call fsync.
 */
export function temporaryRoot(): string {
  try {
    accessSync("/dev/shm", constants.W_OK);
    return "/dev/shm";
  } catch {
    return tmpdir();
  }
}
