/** A guest kept in this process, page by page: a snapshot whose contents a test knows. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { mapScratch } from "../../syscalls/memory.ts";
import { createPageState, attachPageState } from "../../src/dest/shared.ts";
import { SnapshotDestGuest } from "../../src/guests/snapshot/dest-guest.ts";
import { StoreSink } from "../../src/guests/snapshot/store-sink.ts";
import type { PrecopyStoreSink } from "../../src/guests/snapshot/store-sink.ts";
import type { RamBlock } from "../../src/ram/block.ts";
import type { RamSetupBlock } from "../../src/stream/ram-setup.ts";
import { writePackage } from "../../src/stream/package.ts";
import { StreamWriter } from "../../src/stream/writer.ts";

const PAGE_BYTES = 4096;

export class KeptGuest {
  readonly directory: string;
  readonly guest: SnapshotDestGuest;
  readonly blocks: RamBlock[];
  /** As precopy uses it. */
  readonly precopy: PrecopyStoreSink;
  /** As postcopy uses it. */
  readonly postcopy: StoreSink;
  readonly #buffer = mapScratch(64 * PAGE_BYTES);

  /** `directory` exists and is empty. */
  constructor(directory: string, setup: readonly RamSetupBlock[]) {
    this.directory = directory;
    this.guest = new SnapshotDestGuest(directory, () => undefined);
    this.blocks = this.guest.prepareMemory(setup);
    const pages = attachPageState(createPageState(this.blocks), this.blocks);
    const control = new Int32Array(new SharedArrayBuffer(64));
    this.precopy = this.guest.storeSink(pages, this.#buffer);
    this.postcopy = new StoreSink(this.guest.sinkData(), pages, this.#buffer, control);
  }

  /** The block of an index; there must be one. */
  block(index: number): RamBlock {
    const block = this.blocks[index];
    if (block === undefined) throw new RangeError(`there is no block ${index}`);
    return block;
  }

  /** Puts pages into the receive buffer and hands them to a sink. */
  store(sink: StoreSink, index: number, page: number, ...pages: readonly Uint8Array[]): void {
    for (const [n, bytes] of pages.entries()) this.#buffer.bytes.set(bytes, n * PAGE_BYTES);
    sink.pages(this.block(index), page * PAGE_BYTES, 0, pages.length);
  }

  /** The package arrives, all pages are there: the snapshot is complete. */
  finish(): void {
    const writer = new StreamWriter();
    writePackage(writer, (inner) => inner.raw(new Uint8Array(100)), []);
    this.finishWith(writer.bytes);
  }

  /** The same with what arrived in precopy, if `commit` allows it. */
  finishWith(bytes: Uint8Array, vmDescription?: string, commit: () => void = () => {}): void {
    if (this.guest.devices.kind === "opaque") this.guest.devices.keep(bytes, vmDescription);
    this.guest.finish(commit);
  }

  file(name: string): Uint8Array {
    return readFileSync(join(this.directory, name));
  }
}

/** A page that is `byte` all over. */
export function filledPage(byte: number): Uint8Array {
  return new Uint8Array(PAGE_BYTES).fill(byte);
}
