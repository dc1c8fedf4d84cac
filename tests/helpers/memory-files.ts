/**
 * Memory files as Firecracker writes them: a full one, and diffs of its size that are sparse. Every
 * page is known by its first byte, which all of its bytes are.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

export const PAGE_BYTES = 4096;

/** Pages by number, and the byte that fills each. */
export type Contents = Record<number, number>;

/** Writes a sparse file of `pages` pages; gives its path. */
export function writeMemoryFile(path: string, pages: number, contents: Contents): string {
  const fd = openSync(path, "w", 0o600);
  ftruncateSync(fd, pages * PAGE_BYTES);
  for (const [page, value] of Object.entries(contents)) {
    writeSync(fd, Buffer.alloc(PAGE_BYTES, value), 0, PAGE_BYTES, Number(page) * PAGE_BYTES);
  }
  closeSync(fd);
  return path;
}

/** What a guest whose files have these contents holds: one byte a page, the last file first. */
export function memoryOf(pages: number, ...layers: readonly Contents[]): number[] {
  const all: Contents = Object.assign({}, ...layers);
  return Array.from({ length: pages }, (_, page) => all[page] ?? 0);
}

/** The bytes of memory, each of them checked to be its page's. */
export function pageBytes(memory: Uint8Array): number[] {
  return Array.from({ length: memory.length / PAGE_BYTES }, (_, page) => {
    const at = page * PAGE_BYTES;
    const bytes = memory.subarray(at, at + PAGE_BYTES);
    const [value = 0] = bytes;
    if (bytes.some((byte) => byte !== value)) throw new Error(`page ${page} is torn`);
    return value;
  });
}
