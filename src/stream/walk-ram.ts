/**
 * The RAM sections of a stream that is walked: the list of blocks, and every page record, handed on
 * without an allocation a page.
 */
import { RAM_FLAG } from "./constants.ts";
import { readMappedRamHeader } from "./mapped-ram.ts";
import type { MappedRamLayout } from "./mapped-ram.ts";
import { createRamRecord, readRamRecord } from "./ram-record.ts";
import type { RamRecord } from "./ram-record.ts";
import { ramFlagNames } from "./ram-flags.ts";
import { decodeRamSetup } from "./ram-setup.ts";
import type { RamSetupBlock, RamSetupOptions } from "./ram-setup.ts";
import { byteString } from "./reader.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";

/** How the content of a page stands in the stream. */
export type PageKind = "normal" | "zero" | "xbzrle" | "compressed";

/** One page record. One object serves a whole walk; it means nothing after the visit. */
export interface WalkedPage {
  kind: PageKind;
  /** Place of the block in the list. */
  block: number;
  /** Offset in the block, in bytes. */
  offset: number;
  /** Where the record begins in the stream. */
  at: number;
  /** Where its data begins in the stream; the record ends behind it. No data: a page of zeros. */
  dataAt: number;
  dataLength: number;
  /** The same data in memory: bytes[bytesAt, bytesAt + dataLength). */
  bytes: Uint8Array;
  bytesAt: number;
  /** RAM sections before this one: START is 0. */
  section: number;
  /** Whether the package has gone by: the page is sent after the switch. */
  postcopy: boolean;
}

/** A RAM block as the stream lists it. */
export interface WalkedBlock extends RamSetupBlock {
  /** Where its pages lie; only with the capability `mapped-ram`. */
  mappedRam?: MappedRamLayout;
}

/** What the walk tells of RAM. */
export interface RamVisitor {
  /** The list of blocks, whose MEM_SIZE record stands at `at`. */
  ramStart?(blocks: readonly WalkedBlock[], at: number): void;
  page?(page: WalkedPage): void;
  /** A MULTIFD_FLUSH record. */
  flush?(at: number): void;
}

export class RamWalk {
  blocks: readonly WalkedBlock[] | undefined;
  readonly #reader: StreamReader;
  readonly #visitor: RamVisitor;
  readonly #mappedRam: boolean;
  readonly #setup: RamSetupOptions;
  readonly #targetPageSize: number;
  readonly #record: RamRecord = createRamRecord();
  readonly #page: WalkedPage;
  readonly #indexOf = new Map<string, number>();
  /** The block of the record before, for CONTINUE; -1 before the first. */
  #current = -1;

  constructor(
    reader: StreamReader,
    visitor: RamVisitor,
    targetPageSize: number,
    capabilities: readonly string[],
  ) {
    this.#reader = reader;
    this.#visitor = visitor;
    this.#targetPageSize = targetPageSize;
    this.#mappedRam = capabilities.includes("mapped-ram");
    this.#setup = {
      targetPageSize,
      guestPhysicalAddresses: capabilities.includes("x-ignore-shared"),
    };
    this.#page = {
      kind: "normal",
      ...{ block: 0, offset: 0, at: 0, dataAt: 0, dataLength: 0 },
      bytes: reader.bytes,
      ...{ bytesAt: 0, section: 0, postcopy: false },
    };
  }

  /** POSTCOPY_ADVISE has gone by: blocks of huge pages say so. */
  advised(pageSizeSummary: number | undefined): void {
    this.#setup.pageSizeSummary = pageSizeSummary;
  }

  /** Reads the body of a RAM section, up to and with its EOS. */
  body(section: number, postcopy: boolean): void {
    const record = this.#record;
    this.#page.section = section;
    this.#page.postcopy = postcopy;
    for (;;) {
      const at = this.#reader.offset;
      readRamRecord(this.#reader, record, this.#targetPageSize);
      switch (record.flags & ~RAM_FLAG.continue) {
        case RAM_FLAG.page:
          this.#visit("normal", at);
          break;
        case RAM_FLAG.zero:
          if (record.fill !== 0) {
            const fill = `is filled with ${record.fill}`;
            refuse("BAD_VALUE", `A page that is sent as zeros ${fill}`, at);
          }
          this.#visit("zero", at);
          break;
        case RAM_FLAG.xbzrle:
          this.#visit("xbzrle", at);
          break;
        case RAM_FLAG.compressPage:
          this.#visit("compressed", at);
          break;
        case RAM_FLAG.memSize:
          this.#list(record.offset, at);
          break;
        case RAM_FLAG.multifdFlush:
          this.#visitor.flush?.(at);
          break;
        default:
          return;
      }
    }
  }

  #list(total: number, at: number): void {
    if (this.blocks !== undefined) {
      refuse("BAD_FLAGS", "The stream lists its RAM blocks a second time", at);
    }
    const layouts: MappedRamLayout[] = [];
    const { targetPageSize } = this.#setup;
    const reader = this.#reader;
    const blocks = decodeRamSetup(reader, total, {
      ...this.#setup,
      afterBlock: ({ length }) => {
        if (!this.#mappedRam) return;
        const layout = readMappedRamHeader(reader, length, targetPageSize ?? 0);
        reader.skip(layout.end - reader.offset);
        layouts.push(layout);
      },
    });
    this.blocks = blocks.map((block, index): WalkedBlock => {
      this.#indexOf.set(block.name, index);
      const mappedRam = layouts[index];
      return mappedRam === undefined ? block : { ...block, mappedRam };
    });
    this.#visitor.ramStart?.(this.blocks, at);
  }

  #visit(kind: PageKind, at: number): void {
    const record = this.#record;
    const page = this.#page;
    const reader = this.#reader;
    if (record.nameLength > 0) this.#current = this.#find(at);
    const block = this.blocks?.[this.#current];
    if (block === undefined) {
      refuse("BAD_FLAGS", "A page record continues the block of none before it", at);
    }
    if (block.mappedRam !== undefined) {
      const flags = ramFlagNames(record.flags);
      refuse("BAD_FLAGS", `A record ${flags} stands in a stream with mapped-ram`, at);
    }
    if (record.offset >= block.length) {
      const where = `at ${record.offset} of "${block.name}", which has ${block.length} bytes`;
      refuse("BAD_VALUE", `A page is ${where}`, at);
    }
    page.kind = kind;
    page.block = this.#current;
    page.offset = record.offset;
    page.at = at;
    page.dataAt = reader.base + record.dataAt;
    page.dataLength = record.dataLength;
    page.bytesAt = record.dataAt;
    this.#visitor.page?.(page);
  }

  #find(at: number): number {
    const { nameAt, nameLength } = this.#record;
    const name = byteString(this.#reader.bytes, nameAt, nameLength);
    const index = this.#indexOf.get(name);
    if (index !== undefined) return index;
    refuse("BAD_VALUE", `A page is of the unknown RAM block "${name}"`, at);
  }
}
