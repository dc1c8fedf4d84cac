/**
 * Huge pages for tests: a few are added to the host's pool for the time of a test, if that is
 * allowed, and taken away again.
 */
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";

import { tryLock } from "../../syscalls/flock.ts";
import { LONG_TEST_MS } from "./deadline.ts";
import type { Need } from "./need.ts";
import { spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";

/** The size of a huge page that every x86-64 and arm64 host with 4 KiB pages has. */
export const HUGE_PAGE_BYTES = 2 * 1024 * 1024;
/** Target pages in one. */
export const PAGES_PER_HUGE_PAGE = HUGE_PAGE_BYTES / 4096;

const DIRECTORY = `/sys/kernel/mm/hugepages/hugepages-${HUGE_PAGE_BYTES / 1024}kB`;

/** How long a test may wait for the pool, and have it. */
const LIFE_MS = 2 * LONG_TEST_MS;

function read(file: string): number {
  return Number(readFileSync(`${DIRECTORY}/${file}`, "utf8"));
}

function resize(by: number): void {
  writeFileSync(`${DIRECTORY}/nr_hugepages`, String(read("nr_hugepages") + by));
}

/** Adds `count` pages. @throws Error when the host has no contiguous memory for them. */
function addPages(count: number): void {
  const before = read("free_hugepages");
  resize(count);
  const got = read("free_hugepages") - before;
  if (got >= count) return;
  resize(-got);
  throw new Error(`only ${got} of ${count} huge pages could be had`);
}

/**
 * The pool is one for the whole machine, and tests of several files may run at the same time: who
 * changes it holds the lock of its directory. It is taken by flock(1), as who waits in the kernel
 * has his turn before who comes again.
 */
async function lockPool(): Promise<RunningProgram> {
  const holds = ["sh", "-c", "echo locked; exec cat"];
  const holder = spawn(["flock", "--no-fork", DIRECTORY, ...holds], { lifeMs: LIFE_MS });
  await holder.stdout.waitForLine(/locked/, { limitMs: LIFE_MS });
  return holder;
}

/** Pages added to the pool until the end of the block, which is ours alone for so long. */
export class HugePages implements AsyncDisposable {
  readonly #count: number;
  readonly #lock: RunningProgram;

  private constructor(count: number, lock: RunningProgram) {
    this.#count = count;
    this.#lock = lock;
  }

  /** @throws Error when the host has no contiguous memory for them, or does not allow it. */
  static async add(count: number): Promise<HugePages> {
    return await HugePages.#change(() => count);
  }

  /** Until the end of the block `count` are free, whatever the host had reserved before. */
  static async exactlyFree(count: number): Promise<HugePages> {
    return await HugePages.#change(() => count - read("free_hugepages"));
  }

  static async #change(decide: () => number): Promise<HugePages> {
    const lock = await lockPool();
    try {
      const count = decide();
      addPages(count);
      return new HugePages(count, lock);
    } catch (error) {
      await lock[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using _ = this.#lock;
    resize(-this.#count);
  }
}

/** Tries whether `count` pages can be had, unless somebody has the pool just now, who could. */
function tryPages(count: number): void {
  const fd = openSync(DIRECTORY, "r");
  try {
    if (!tryLock(fd)) return;
    addPages(count);
    resize(-count);
  } finally {
    closeSync(fd);
  }
}

/** Whether a test can have `count` huge pages. */
export function needHugePages(count: number): Need {
  try {
    tryPages(count);
    return { what: `${count} huge pages of 2 MiB`, missing: undefined };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { what: `${count} huge pages of 2 MiB`, missing: `run as root (${why})` };
  }
}
