/** A guest kept in this process, page by page: a snapshot whose contents a test knows. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { mapScratch } from "../../syscalls/memory.ts";
import { createPageState, attachPageState } from "../../src/dest/shared.ts";
import type { PageState } from "../../src/dest/shared.ts";
import { readArrival } from "../../src/guests/snapshot/arrival-file.ts";
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
  /** Which pages have arrived. */
  readonly pages: PageState;
  readonly #buffer = mapScratch(64 * PAGE_BYTES);

  /** `directory` exists, and is empty, or (without `setup`) has a guest that is to be resumed. */
  constructor(directory: string, setup?: readonly RamSetupBlock[]) {
    this.directory = directory;
    const takenOver = setup === undefined ? readArrival(directory) : undefined;
    this.guest = new SnapshotDestGuest(directory, () => undefined, takenOver);
    const part = setup === undefined ? this.guest.resume() : undefined;
    this.blocks = part?.blocks ?? this.guest.prepareMemory(setup ?? []);
    const pages = attachPageState(createPageState(this.blocks, part?.pages), this.blocks);
    this.pages = pages;
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

  /** The same with pages that lie apart, in no order. */
  storeScattered(sink: StoreSink, index: number, page: number, all: readonly Uint8Array[]): void {
    const places = Int32Array.from(all, (_, n) => (all.length - 1 - n) * (PAGE_BYTES + 8) + 13);
    for (const [n, bytes] of all.entries()) this.#buffer.bytes.set(bytes, places[n]);
    sink.scattered(this.block(index), page * PAGE_BYTES, places, all.length);
  }

  /** The package arrives, all pages are there: the snapshot is complete. */
  finish(): void {
    this.finishWith(somePackage());
  }

  /** The package arrives, and all pages of the blocks that `isLate` says will come behind it. */
  takeOver(isLate: (index: number, page: number) => boolean): void {
    for (const { index } of this.blocks) {
      const received = this.pages.received[index];
      for (let page = 0; page < (received?.pages ?? 0); page++) {
        if (!isLate(index, page)) continue;
        this.guest.reserve(this.block(index), page * PAGE_BYTES, PAGE_BYTES);
        received?.clearRange(page, 1);
      }
    }
    if (this.guest.devices.kind === "opaque") this.guest.devices.keep(somePackage());
    this.guest.takeOver(this.pages, { ramSectionId: 1, sourceIsOurs: false });
  }

  /** The pages that have not arrived, in order. */
  get missing(): { index: number; page: number }[] {
    return this.blocks.flatMap(({ index }) => {
      const received = this.pages.received[index];
      const all = Array.from({ length: received?.pages ?? 0 }, (_, page) => ({ index, page }));
      return all.filter(({ page }) => !received?.test(page));
    });
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

/** A package with some device state. */
function somePackage(): Uint8Array {
  const writer = new StreamWriter();
  writePackage(writer, (inner) => inner.raw(new Uint8Array(100)), []);
  return writer.bytes;
}

/** A page that is `byte` all over. */
export function filledPage(byte: number): Uint8Array {
  return new Uint8Array(PAGE_BYTES).fill(byte);
}
