/**
 * Huge pages for tests: a few are added to the host's pool for the time of a test, if that is
 * allowed, and taken away again.
 */
import { readFileSync, writeFileSync } from "node:fs";
import type { Need } from "./need.ts";

/** The size of a huge page that every x86-64 and arm64 host with 4 KiB pages has. */
export const HUGE_PAGE_BYTES = 2 * 1024 * 1024;
/** Target pages in one. */
export const PAGES_PER_HUGE_PAGE = HUGE_PAGE_BYTES / 4096;

const DIRECTORY = `/sys/kernel/mm/hugepages/hugepages-${HUGE_PAGE_BYTES / 1024}kB`;

function read(file: string): number {
  return Number(readFileSync(`${DIRECTORY}/${file}`, "utf8"));
}

function resize(by: number): void {
  writeFileSync(`${DIRECTORY}/nr_hugepages`, String(read("nr_hugepages") + by));
}

/** Pages added to the pool until the end of the block. */
export class HugePages implements Disposable {
  readonly #count: number;

  /** Until the end of the block `count` are free, whatever the host had reserved before. */
  static exactlyFree(count: number): HugePages {
    return new HugePages(count - read("free_hugepages"));
  }

  /**
   * `count` may be below 0: free pages are taken away. @throws Error when the host has no contiguous
   * memory for them, or does not allow it.
   */
  constructor(count: number) {
    const before = read("free_hugepages");
    resize(count);
    const got = read("free_hugepages") - before;
    this.#count = count;
    if (got < count) {
      resize(-got);
      throw new Error(`only ${got} of ${count} huge pages could be had`);
    }
  }

  [Symbol.dispose](): void {
    resize(-this.#count);
  }
}

/** Whether a test can have `count` huge pages. */
export function needHugePages(count: number): Need {
  try {
    new HugePages(count)[Symbol.dispose]();
    return { what: `${count} huge pages of 2 MiB`, missing: undefined };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { what: `${count} huge pages of 2 MiB`, missing: `run as root (${why})` };
  }
}
