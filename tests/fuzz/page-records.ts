/** Another reading, and writing, of RAM records and page runs, as the model of what a channel of pages brings. */
import { zstdDecompressSync } from "node:zlib";
import { Cursor } from "./layout.ts";
import { recordsLayout } from "./layouts.ts";

const PAGE = 4096;
const FLAG = { zero: 0x02, page: 0x08, end: 0x10, again: 0x20, packed: 0x100, run: 0x400 } as const;

/** A page, in the order in which they come; without data it is zeros. */
export interface ReadPage {
  offset: number;
  data: Uint8Array | undefined;
}

/**
 * All pages up to the end of the section, of which each is of the block of that name.
 * @throws ModelError, or a plain Error, where the program should have refused the bytes.
 */
export function readPages(bytes: Uint8Array, block: string): ReadPage[] {
  const cursor = new Cursor(bytes);
  const pages: ReadPage[] = [];
  for (;;) {
    const head = cursor.u64("head");
    const flags = head % PAGE;
    if (flags === FLAG.end) return pages;
    if ((flags & FLAG.again) === 0) {
      const name = cursor.text(cursor.u8("length"), "block");
      if (name !== block) throw new Error(`the page is of ${name}`);
    }
    readRecord(cursor, flags & ~FLAG.again, head - flags, pages);
  }
}

function readRecord(cursor: Cursor, kind: number, offset: number, pages: ReadPage[]): void {
  const add = (data: Uint8Array | undefined, index = 0): void => {
    pages.push({ offset: offset + index * PAGE, data });
  };
  switch (kind) {
    case FLAG.page:
      add(cursor.slice(PAGE, "page"));
      break;
    case FLAG.zero: {
      const fill = cursor.u8("fill");
      add(fill === 0 ? undefined : new Uint8Array(PAGE).fill(fill));
      break;
    }
    case FLAG.run | FLAG.page:
      for (let count = cursor.u32("pages"), i = 0; i < count; i++)
        add(cursor.slice(PAGE, "page"), i);
      break;
    case FLAG.run | FLAG.zero:
      for (let count = cursor.u32("pages"), i = 0; i < count; i++) add(undefined, i);
      break;
    case FLAG.run | FLAG.packed: {
      const count = cursor.u32("pages");
      // Bytes behind a frame, and a checksum that is cut off, are nobody's page and harm nobody.
      const all = zstdDecompressSync(cursor.slice(cursor.u32("bytes"), "frame"));
      if (all.length !== count * PAGE) throw new Error(`${all.length} bytes of ${count} pages`);
      for (let i = 0; i < count; i++) add(all.subarray(i * PAGE, (i + 1) * PAGE), i);
      break;
    }
    default:
      throw new Error(`a record of the flags ${kind}`);
  }
}

/**
 * A channel of ours with its head, whose plain runs are compressed, each page to one byte over and over:
 * those of a stress guest would not become smaller. What breaks off is left out.
 */
export function packRuns(bytes: Uint8Array): Uint8Array {
  const { spans } = recordsLayout(bytes);
  const [first] = spans;
  const records = spans.map(({ at, end }) => packRun(Buffer.from(bytes.subarray(at, end))));
  return new Uint8Array(Buffer.concat([bytes.subarray(0, first?.at), ...records]));
}

function packRun(record: Buffer): Buffer {
  const kind = FLAG.run | FLAG.page;
  const flags = record.readUInt16BE(6);
  if ((flags & kind) !== kind) return record;
  const headBytes = record.length % PAGE;
  for (let at = headBytes; at < record.length; at += PAGE) {
    record.fill(record[at] ?? 0, at, at + PAGE);
  }
  const frame = Bun.zstdCompressSync(record.subarray(headBytes), { level: 1 });
  const packed = Buffer.concat([record.subarray(0, headBytes), Buffer.alloc(4), frame]);
  packed.writeUInt16BE((flags & ~FLAG.page) | FLAG.packed, 6);
  packed.writeUInt32BE(frame.length, headBytes);
  return packed;
}
