/** Where the pages of a Firecracker snapshot lie: at their own offset, in the last file that has them. */
import { fstatSync } from "node:fs";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { PostcopyError } from "../../util/errors.ts";
import { sameFile } from "../stored/identity.ts";
import type { PageTable } from "../stored/pages.ts";
import type { MemoryLayer, OpenedMemory } from "./open.ts";

export class MemoryTable implements PageTable {
  readonly #layers: readonly MemoryLayer[];
  readonly #layerOf: Uint8Array<SharedArrayBuffer>;

  constructor({ layers, layerOf }: OpenedMemory) {
    this.#layers = layers;
    this.#layerOf = new Uint8Array(layerOf);
  }

  isZero(_block: number, page: number): boolean {
    return this.#layerOf[page] === 0;
  }

  descriptorOf(_block: number, page: number): number {
    return this.#layer(page).descriptor;
  }

  pathOf(_block: number, page: number): string {
    return this.#layer(page).path;
  }

  offsetOf(_block: number, page: number): number {
    return page * TARGET_PAGE_SIZE;
  }

  /** Such files have no checksums. */
  sumOf(): undefined {
    return undefined;
  }

  unchanged(_block: number, page: number): boolean {
    const { descriptor, identity } = this.#layer(page);
    return sameFile(identity, fstatSync(descriptor, { bigint: true }));
  }

  damaged(block: RamBlock, offset: number, what: string, cause?: unknown): Error {
    const path = this.pathOf(block.index, offset / TARGET_PAGE_SIZE);
    const hint = "the page was not sent: put the file right first";
    const message = `The page at ${offset} of ${path} ${what}`;
    return new PostcopyError("DAMAGED_FILE", message, { cause, hint });
  }

  #layer(page: number): MemoryLayer {
    const layer = this.#layers[(this.#layerOf[page] ?? 0) - 1];
    if (layer === undefined) throw new RangeError(`page ${page} is in no file`);
    return layer;
  }
}
