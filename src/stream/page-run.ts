/**
 * Page runs: records of our own that stand among RAM records once both ends have chosen them
 * (hello.ts). One header says what a whole run of consecutive target pages is, and their data lie
 * one behind the other, so that who receives them can place them from where they have arrived.
 *
 *     u64 offset | RUN | kind [| CONTINUE], [str8 block], u32 pages, [u32 bytes], data
 *
 *     PAGE            the pages, as they are
 *     ZERO            no data: the pages hold only zeros
 *     COMPRESS_PAGE   `bytes` bytes: the pages as one frame of zstd, if that was chosen too
 *
 * A QEMU knows neither the flag nor the record, and refuses the stream.
 */
import {
  NAME_BYTES_MAX,
  PACKED_RUN_PAGES_MAX,
  RAM_FLAG,
  RUN_PAGES_MAX,
  TARGET_PAGE_SIZE,
  ZERO_RUN_PAGES_MAX,
} from "./constants.ts";
import { putStr8, putU64 } from "./put.ts";
import { refuseFlags, refuseOffset } from "./ram-flags.ts";
import { refuse } from "./refuse.ts";

/** A header as the decoder leaves it. One object serves a whole channel; it is filled anew. */
export interface PageRun {
  kind: "plain" | "zero" | "zstd";
  /** Offset of the first page in the block, in bytes. */
  offset: number;
  /** Where the block's name lies in the bytes decoded; nameLength 0 means the previous block. */
  nameAt: number;
  nameLength: number;
  /** Target pages: at least 1, and at most so many as RUN_PAGES_MAX and its likes say. */
  pages: number;
  /** Bytes that follow the header. */
  dataLength: number;
}

const WORD_BYTES = 8;
const COUNT_BYTES = 4;
const TWO_32 = 0x1_0000_0000;
/** The upper half of 2^53 - 1. */
const SAFE_HIGH_MAX = 0x1f_ffff;

/** Longest header of a run. */
export const PAGE_RUN_HEADER_BYTES_MAX = WORD_BYTES + 1 + NAME_BYTES_MAX + 2 * COUNT_BYTES;

/** An empty header for the decoder to fill. */
export function createPageRun(): PageRun {
  return { kind: "zero", offset: 0, nameAt: 0, nameLength: 0, pages: 0, dataLength: 0 };
}

/** Whether the record whose u64 stands at `pos` is a run. */
export function isPageRun(view: DataView, pos: number): boolean {
  return (view.getUint32(pos + 4) & RAM_FLAG.run) !== 0;
}

/**
 * Decodes the header at `pos` into `out` and returns its bytes, or 0 if [pos, end) does not hold all
 * of it yet. `base` is the stream offset of bytes[0], for errors.
 * @throws StreamError for flags, counts and lengths that cannot be.
 */
export function decodePageRun(
  bytes: Uint8Array,
  view: DataView,
  pos: number,
  end: number,
  out: PageRun,
  base: number,
): number {
  if (end - pos < WORD_BYTES) return 0;
  const high = view.getUint32(pos);
  const low = view.getUint32(pos + 4);
  const flags = low & (TARGET_PAGE_SIZE - 1);
  if (high > SAFE_HIGH_MAX) refuseOffset(high, low, flags, base + pos);
  out.kind = kindOf(flags, base + pos);
  out.offset = high * TWO_32 + (low - flags);
  const named = (flags & RAM_FLAG.continue) === 0;
  out.nameLength = named && end - pos > WORD_BYTES ? view.getUint8(pos + WORD_BYTES) : 0;
  out.nameAt = named ? pos + WORD_BYTES + 1 : 0;
  if (named && out.nameLength === 0 && end - pos > WORD_BYTES) {
    refuse("BAD_LENGTH", "A page run has an empty name for its RAM block", base + pos);
  }
  const at = pos + WORD_BYTES + (named ? 1 + out.nameLength : 0);
  const header = at - pos + COUNT_BYTES * (out.kind === "zstd" ? 2 : 1);
  if (end - pos < header) return 0;
  out.pages = view.getUint32(at);
  out.dataLength = out.kind === "plain" ? out.pages * TARGET_PAGE_SIZE : 0;
  if (out.kind === "zstd") out.dataLength = view.getUint32(at + COUNT_BYTES);
  checkCounts(out, base + at);
  return header;
}

function kindOf(flags: number, offset: number): PageRun["kind"] {
  switch (flags & ~(RAM_FLAG.run | RAM_FLAG.continue)) {
    case RAM_FLAG.page:
      return "plain";
    case RAM_FLAG.zero:
      return "zero";
    case RAM_FLAG.compressPage:
      return "zstd";
    default:
      return refuseFlags(flags, offset);
  }
}

const PAGES_MAX = {
  plain: RUN_PAGES_MAX,
  zero: ZERO_RUN_PAGES_MAX,
  zstd: PACKED_RUN_PAGES_MAX,
} as const;

function checkCounts({ kind, pages, dataLength }: PageRun, offset: number): void {
  const most = PAGES_MAX[kind];
  if (pages === 0 || pages > most) {
    refuse("BAD_LENGTH", `A page run (${kind}) has ${pages} pages`, offset);
  }
  if (kind === "zstd" && (dataLength === 0 || dataLength > pages * TARGET_PAGE_SIZE)) {
    const what = `A compressed run of ${pages} pages has ${dataLength} bytes`;
    refuse("BAD_LENGTH", what, offset);
  }
}

const FLAG_OF = {
  plain: RAM_FLAG.page,
  zero: RAM_FLAG.zero,
  zstd: RAM_FLAG.compressPage,
} as const;

/**
 * Writes the header of a run; `block` is undefined to continue in the block before, `frameBytes` the
 * length of what follows a "zstd" one. Returns the bytes written, at most PAGE_RUN_HEADER_BYTES_MAX.
 */
export function putPageRun(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  run: Pick<PageRun, "kind" | "offset" | "pages">,
  block: string | undefined,
  frameBytes = 0,
): number {
  const flags = RAM_FLAG.run | FLAG_OF[run.kind] | (block === undefined ? RAM_FLAG.continue : 0);
  putU64(view, at, run.offset + flags);
  let to = at + WORD_BYTES;
  if (block !== undefined) to += putStr8(bytes, to, block);
  view.setUint32(to, run.pages);
  to += COUNT_BYTES;
  if (run.kind === "zstd") {
    view.setUint32(to, frameBytes);
    to += COUNT_BYTES;
  }
  return to - at;
}
