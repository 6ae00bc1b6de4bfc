import { statfs } from "node:fs/promises";

/** Bytes that this user can still write on the file system of a directory. */
export async function freeSpace(directory: string): Promise<bigint> {
  const { bavail, bsize } = await statfs(directory, { bigint: true });
  return bavail * bsize;
}
