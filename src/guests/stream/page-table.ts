/** Where the pages of a saved stream lie: in the file itself, or decoded beside it. */
import { fstatSync } from "node:fs";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { PostcopyError } from "../../util/errors.ts";
import type { PageTable } from "../stored/pages.ts";
import { indexPath } from "./draft.ts";
import { sameFile } from "../stored/identity.ts";
import type { OpenedStream } from "./opened.ts";
import { sideOffset, ZERO_PAGE } from "./where.ts";

export class StreamTable implements PageTable {
  readonly #stream: OpenedStream;
  readonly #where: Float64Array<SharedArrayBuffer>[];
  readonly #sums: Uint32Array<SharedArrayBuffer>[] | undefined;

  constructor(stream: OpenedStream) {
    this.#stream = stream;
    this.#where = stream.where.map((shared) => new Float64Array(shared));
    this.#sums = stream.sums?.map((shared) => new Uint32Array(shared));
  }

  isZero(block: number, page: number): boolean {
    return this.#at(block, page) === ZERO_PAGE;
  }

  descriptorOf(block: number, page: number): number {
    return this.#at(block, page) < 0 ? this.#stream.sideDescriptor : this.#stream.descriptor;
  }

  pathOf(block: number, page: number): string {
    const { path } = this.#stream;
    return this.#at(block, page) < 0 ? indexPath(path) : path;
  }

  offsetOf(block: number, page: number): number {
    const where = this.#at(block, page);
    return where < 0 ? sideOffset(where) : where;
  }

  sumOf(block: number, page: number): number | undefined {
    return this.#sums?.[block]?.[page];
  }

  /** Asked of the file where there are no sums that would tell. */
  unchanged(): boolean {
    if (this.#sums !== undefined) return true;
    const { descriptor, identity } = this.#stream;
    return sameFile(identity, fstatSync(descriptor, { bigint: true }));
  }

  damaged(block: RamBlock, offset: number, what: string, cause?: unknown): Error {
    const page = offset / TARGET_PAGE_SIZE;
    const path = this.pathOf(block.index, page);
    const at = this.offsetOf(block.index, page);
    const message = `The page at ${offset} of "${block.name}", at byte ${at} of ${path}, ${what}`;
    const remedy = path === this.#stream.path ? "put the file right" : "remove the index";
    const hint = `the page was not sent: ${remedy} first`;
    return new PostcopyError("DAMAGED_FILE", message, { cause, hint });
  }

  #at(block: number, page: number): number {
    const where = this.#where[block]?.[page];
    if (where === undefined) throw new RangeError(`there is no page ${page} of block ${block}`);
    return where;
  }
}
