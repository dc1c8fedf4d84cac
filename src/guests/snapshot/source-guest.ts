/** A kept guest as the source role sees it: it stands still, and is read where it lies. */
import { viewMemory, WINDOW_BYTES_MAX } from "../../../syscalls/memory.ts";
import type { RamBlock } from "../../ram/block.ts";
import type { SourceGuest } from "../../source/guest.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { PostcopyError } from "../../util/errors.ts";
import { pageSum } from "./layout.ts";
import type { OpenedSnapshot } from "./open.ts";

export class SnapshotSourceGuest implements SourceGuest {
  readonly machineType: string;
  readonly blocks: readonly RamBlock[];
  readonly live = false;
  readonly #snapshot: OpenedSnapshot;
  readonly #sums: Uint32Array<SharedArrayBuffer>[];
  readonly #windows: Uint8Array[][];

  constructor(snapshot: OpenedSnapshot) {
    this.machineType = snapshot.machineType;
    this.blocks = snapshot.blocks;
    this.#snapshot = snapshot;
    this.#sums = snapshot.sums.map((shared) => new Uint32Array(shared));
    this.#windows = snapshot.blocks.map(({ address, length }) => {
      const windows: Uint8Array[] = [];
      for (let at = 0; at < length; at += WINDOW_BYTES_MAX) {
        const bytes = Math.min(WINDOW_BYTES_MAX, length - at);
        windows.push(new Uint8Array(viewMemory(address + at, bytes)));
      }
      return windows;
    });
  }

  verifyPage(block: RamBlock, offset: number): void {
    const window = this.#windows[block.index]?.[Math.floor(offset / WINDOW_BYTES_MAX)];
    const at = offset % WINDOW_BYTES_MAX;
    const page = window?.subarray(at, at + TARGET_PAGE_SIZE);
    const expected = this.#sums[block.index]?.[offset / TARGET_PAGE_SIZE];
    if (page !== undefined && pageSum(page) === expected) return;
    const file = this.#snapshot.files[block.index];
    throw new PostcopyError(
      "DAMAGED_SNAPSHOT",
      `The snapshot in ${this.#snapshot.directory} is damaged: the page at ${offset} of ${file} ` +
        `(${block.name}) does not have its checksum`,
      { hint: "the page was not sent, and the guest does not go on without it" },
    );
  }

  stop(): void {
    // It stands still already.
  }

  resume(): void {
    // Nothing runs here: the snapshot is as it was.
  }

  devicePackage(): Uint8Array {
    return this.#snapshot.package;
  }
}
