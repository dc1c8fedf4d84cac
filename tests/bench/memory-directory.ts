/** Where no disk is waited for: what is measured is the migration. */
import { existsSync, mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { tmpdir } from "node:os";

const MEMORY_FILES = "/dev/shm";

/** A directory in memory where there is a place for that, removed with everything in it. */
export class MemoryDirectory implements AsyncDisposable {
  readonly #path = mkdtempSync(
    join(existsSync(MEMORY_FILES) ? MEMORY_FILES : tmpdir(), "postcopy-"),
  );

  get path(): string {
    return this.#path;
  }

  file(name: string): string {
    return join(this.#path, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#path, { recursive: true, force: true });
  }
}
