/** Files and names that are still there after the power has gone. */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, resolve } from "node:path";

/** Makes the names in a directory durable. */
export function syncDirectory(directory: string): void {
  const fd = openSync(directory, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Creates a directory with those above it, for its owner alone, and makes their names durable: files
 * that are safe are of no use where the way to them is lost.
 */
export function makeDirectory(directory: string): void {
  const created = mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (created === undefined) return;
  const first = resolve(created);
  let level = resolve(directory);
  while (level !== first && level !== dirname(level)) {
    level = dirname(level);
    syncDirectory(level);
  }
  syncDirectory(dirname(first));
}

/** Writes a small file, for its owner alone: afterwards it is there whole, or as it was before. */
export function replaceFile(path: string, text: string): void {
  const unfinished = `${path}.tmp`;
  const fd = openSync(unfinished, "w", 0o600);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(unfinished, path);
  syncDirectory(dirname(path));
}

/** Removes a file for good; that it is gone already is well. */
export function removeFile(path: string): void {
  rmSync(path, { force: true });
  syncDirectory(dirname(path));
}
