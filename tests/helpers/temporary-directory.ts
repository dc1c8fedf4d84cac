/** A directory of its own for one test, removed with everything in it at the end of the block. */
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class TemporaryDirectory implements AsyncDisposable {
  readonly path: string;

  /** `name` shows in the path; keep it short, as the path of a unix socket has 107 bytes. */
  constructor(name = "test") {
    this.path = mkdtempSync(join(tmpdir(), `postcopy-${name}-`));
  }

  /** The path of a file in the directory. */
  file(name: string): string {
    return join(this.path, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}
