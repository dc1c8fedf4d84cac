/** A guest that is kept: its pages go to files, its device state stays as it came. */
import { closeSync, fsyncSync, ftruncateSync, openSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DestGuest, DeviceLoading, PageSink, ReceiveBuffer } from "../../dest/guest.ts";
import type { PageState } from "../../dest/shared.ts";
import type { RamBlock } from "../../ram/block.ts";
import { targetPages } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import type { RamSetupBlock } from "../../stream/ram-setup.ts";
import { PostcopyError, StreamError } from "../../util/errors.ts";
import { PROGRAM, VERSION } from "../../util/version.ts";
import {
  MANIFEST_FILE,
  PACKAGE_FILE,
  ramFile,
  sha256,
  SNAPSHOT_FORMAT,
  SNAPSHOT_VERSION,
  sumsFile,
  ZERO_PAGE_SUM,
} from "./layout.ts";
import type { Manifest, ManifestBlock } from "./layout.ts";
import { StoreSink } from "./store-sink.ts";
import type { StoreData } from "./store-sink.ts";

/** What was kept, for the report. */
export interface KeptSnapshot {
  directory: string;
  pagesStored: number;
  deviceBytes: number;
}

export class SnapshotDestGuest implements DestGuest {
  readonly memory = "stored";
  readonly devices: DeviceLoading = {
    kind: "opaque",
    keep: (bytes) => {
      this.#package = bytes;
    },
  };
  readonly #directory: string;
  readonly #kept: (snapshot: KeptSnapshot) => void;
  #machineType = "";
  #blocks: RamBlock[] = [];
  #package: Uint8Array | undefined;
  #data: StoreData | undefined;

  /** `directory` exists and is empty; `kept` is told once the snapshot is complete. */
  constructor(directory: string, kept: (snapshot: KeptSnapshot) => void) {
    this.#directory = directory;
    this.#kept = kept;
  }

  configure(configuration: StreamConfiguration | undefined): void {
    const capabilities = configuration?.capabilities ?? [];
    if (capabilities.length > 0) {
      throw new StreamError(
        "UNSUPPORTED_CAPABILITY",
        `The source migrates with the capability ${capabilities.join(", ")}, which a snapshot ` +
          "cannot keep",
        { hint: "switch it off at the source (migrate_set_capability)" },
      );
    }
    this.#machineType = configuration?.machine ?? "";
  }

  prepareMemory(setup: readonly RamSetupBlock[]): RamBlock[] {
    this.#blocks = setup.map(({ name, length, pageSize }, index) => {
      return { index, name, length, pageSize, address: 0 };
    });
    const files = this.#blocks.map((block) => {
      const fd = this.#io("create", ramFile(block.index), (path) => openSync(path, "wx+", 0o600));
      this.#io("size", ramFile(block.index), () => ftruncateSync(fd, block.length));
      return fd;
    });
    const sums = this.#blocks.map((block) => {
      const shared = new SharedArrayBuffer(targetPages(block) * 4);
      new Uint32Array(shared).fill(ZERO_PAGE_SUM);
      return shared;
    });
    this.#data = { directory: this.#directory, files, sums };
    return this.#blocks;
  }

  storeSink(pages: PageState, buffer: ReceiveBuffer): PageSink {
    return new StoreSink(this.#store(), pages, buffer);
  }

  sinkData(): StoreData {
    return this.#store();
  }

  #store(): StoreData {
    if (this.#data === undefined) throw new Error("the RAM blocks are not known yet");
    return this.#data;
  }

  run(): void {
    // It is kept, not run: whoever restores it runs it.
  }

  /** Makes all files durable, and only then says by the manifest that they are a snapshot. */
  finish(): void {
    const { files, sums } = this.#store();
    const bytes = this.#package;
    if (bytes === undefined) throw new Error("a package without device state was accepted");
    for (const [index, fd] of files.entries()) {
      this.#io("write", ramFile(index), () => fsyncSync(fd));
      closeSync(fd);
    }
    const blocks = this.#blocks.map((block) => this.#writeSums(block, sums[block.index]));
    this.#write(PACKAGE_FILE, bytes);
    const manifest: Manifest = {
      format: SNAPSHOT_FORMAT,
      version: SNAPSHOT_VERSION,
      program: `${PROGRAM} ${VERSION}`,
      createdAt: new Date().toISOString(),
      machineType: this.#machineType,
      targetPageSize: TARGET_PAGE_SIZE,
      blocks,
      package: { file: PACKAGE_FILE, bytes: bytes.length, sha256: sha256(bytes) },
    };
    const text = new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`);
    this.#write(`${MANIFEST_FILE}.tmp`, text);
    this.#syncDirectory();
    this.#io("write", MANIFEST_FILE, (path) => renameSync(`${path}.tmp`, path));
    this.#syncDirectory();
    const pagesStored = blocks.reduce((sum, block) => sum + block.pagesStored, 0);
    this.#kept({ directory: this.#directory, pagesStored, deviceBytes: bytes.length });
  }

  #writeSums(block: RamBlock, shared: SharedArrayBuffer | undefined): ManifestBlock {
    // Copied out: a file cannot be written from shared memory.
    const sums = new Uint32Array(shared ?? new SharedArrayBuffer(0)).slice();
    const bytes = new Uint8Array(sums.buffer);
    this.#write(sumsFile(block.index), bytes);
    return {
      name: block.name,
      length: block.length,
      pageSize: block.pageSize,
      file: ramFile(block.index),
      sums: sumsFile(block.index),
      sumsSha256: sha256(bytes),
      pagesStored: sums.reduce((count, sum) => count + (sum === ZERO_PAGE_SUM ? 0 : 1), 0),
    };
  }

  #write(name: string, bytes: Uint8Array): void {
    this.#io("write", name, (path) => {
      const fd = openSync(path, "w", 0o600);
      try {
        writeFileSync(fd, bytes);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    });
  }

  #syncDirectory(): void {
    const fd = openSync(this.#directory, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }

  #io<Result>(what: string, name: string, act: (path: string) => Result): Result {
    try {
      return act(join(this.#directory, name));
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
      const full = code === "ENOSPC" || code === "EDQUOT";
      const message = `Cannot ${what} ${name} in ${this.#directory}`;
      throw new PostcopyError(full ? "NO_SPACE" : "CANNOT_STORE", message, { cause });
    }
  }
}
