import fs from "node:fs";
import { dirname, join, resolve } from "node:path";

/** Makes the names in a directory durable. One that was removed meanwhile has none. */
export function syncDirectory(path: string): void {
  syncPath(path);
}

/** Makes everything below a directory durable: contents of files, names, and the directory itself. */
export function syncTree(root: string): void {
  for (const entry of fs.readdirSync(root, { withFileTypes: true })) {
    const path = join(root, entry.name);
    if (entry.isDirectory()) syncTree(path);
    else if (entry.isFile()) syncPath(path);
  }
  syncPath(root);
}

/** Makes a directory and those above it where they are missing, durable up to the first that was there. */
export function makeDirectoryDurably(path: string, mode: number): void {
  const first = fs.mkdirSync(path, { recursive: true, mode });
  if (first === undefined) return;
  const top = dirname(first);
  for (let current = resolve(path); ; current = dirname(current)) {
    syncPath(current);
    if (current === top) return;
  }
}

function syncPath(path: string): void {
  let descriptor: number;
  try {
    descriptor = fs.openSync(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}
