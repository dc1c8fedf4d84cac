/** Where the pages of a snapshot lie: each block in a file of its own, every page at its offset. */
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import type { PageTable } from "../stored/pages.ts";
import { ZERO_PAGE_SUM } from "../stored/page-sum.ts";
import { damagedSnapshot } from "./damage.ts";
import type { OpenedSnapshot } from "./open.ts";

export class SnapshotTable implements PageTable {
  readonly #snapshot: OpenedSnapshot;
  readonly #sums: Uint32Array<SharedArrayBuffer>[];

  constructor(snapshot: OpenedSnapshot) {
    this.#snapshot = snapshot;
    this.#sums = snapshot.sums.map((shared) => new Uint32Array(shared));
  }

  /** Known from the checksum, so pages of zeros are never read. */
  isZero(block: number, page: number): boolean {
    return this.#sums[block]?.[page] === ZERO_PAGE_SUM;
  }

  descriptorOf(block: number): number {
    return this.#snapshot.descriptors[block] ?? -1;
  }

  pathOf(block: number): string {
    return `${this.#snapshot.directory}/${this.#snapshot.files[block]}`;
  }

  offsetOf(_block: number, page: number): number {
    return page * TARGET_PAGE_SIZE;
  }

  sumOf(block: number, page: number): number {
    // A page that the snapshot has no sum of has no page either: no sum is -1.
    return this.#sums[block]?.[page] ?? -1;
  }

  /** The sums say it of every page. */
  unchanged(): boolean {
    return true;
  }

  damaged(block: RamBlock, offset: number, what: string, cause?: unknown): Error {
    const { directory, files } = this.#snapshot;
    const page = `the page at ${offset} of ${files[block.index]} (${block.name})`;
    const hint = "the page was not sent: put the file right first";
    return damagedSnapshot(directory, `${page} ${what}`, hint, cause);
  }
}
