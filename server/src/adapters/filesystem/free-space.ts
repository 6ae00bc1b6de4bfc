import { statfs } from "node:fs/promises";

/** Bytes that the file system of a directory has in all. */
export async function diskSize(directory: string): Promise<bigint> {
  const { blocks, bsize } = await statfs(directory, { bigint: true });
  return blocks * bsize;
}

/** Bytes that this user can still write on the file system of a directory. */
export async function freeSpace(directory: string): Promise<bigint> {
  const { bavail, bsize } = await statfs(directory, { bigint: true });
  return bavail * bsize;
}
