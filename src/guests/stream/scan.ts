/**
 * One pass through a stream that notes where the newest content of every page lies. Memory: twelve
 * bytes a page (its place and its checksum), and constants. Pages that do not lie in the file as
 * they are (XBZRLE, compressed, or the whole body is) are decoded into a side file, each at the
 * place that it has in the guest's memory, so that they are read back in order.
 */
import { readAt, writeAt } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { SyscallError } from "../../../syscalls/error.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { checkTables } from "../../ram/tables.ts";
import type { Command } from "../../stream/command.ts";
import { inflatePage } from "../../stream/compressed-page.ts";
import { DiscardLimit } from "../../stream/discard-limit.ts";
import { targetPageSizeOf } from "../../stream/header.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import { packageOfSections } from "../../stream/package.ts";
import type { StreamVisitor, WalkedBlock, WalkedPage } from "../../stream/walk.ts";
import { uuidText } from "../../stream/uuid.ts";
import { decodeXbzrle } from "../../stream/xbzrle.ts";
import { StreamError } from "../../util/errors.ts";
import { pageSum, ZERO_PAGE_SUM } from "../stored/page-sum.ts";
import type { Draft } from "./draft.ts";
import { storeFailure } from "./failures.ts";
import { BYTES_A_PAGE, inSideFile, MISSING_PAGE, sideOffset, ZERO_PAGE } from "./where.ts";

/** Capabilities of a stream that this pass can make sense of. */
const KNOWN_CAPABILITIES: ReadonlySet<string> = new Set(["mapped-ram"]);
/** Progress is told once in so many pages. */
const PROGRESS_PAGES = 1024;

/** What a scan needs beside the stream. */
export interface ScanFiles {
  /** The file, where its pages can be served from it; -1 where its body is compressed. */
  descriptor: number;
  /** The side file, made when it is first needed. */
  side: () => Pick<Draft, "fd" | "place">;
}

export class StreamScan implements StreamVisitor {
  machineType = "";
  uuid: string | undefined;
  blocks: readonly WalkedBlock[] = [];
  devicePackage: Uint8Array | undefined;
  where: Float64Array<SharedArrayBuffer>[] = [];
  sums: Uint32Array<SharedArrayBuffer>[] = [];
  /** Bytes of the side file; 0 while it is not needed. */
  sideBytes = 0;
  readonly #files: ScanFiles;
  readonly #progress: (at: number) => void;
  readonly #scratch = mapScratch(TARGET_PAGE_SIZE);
  /** Where each block begins in the side file. */
  readonly #bases: number[] = [];
  /** The reader's window, which stays the same for the whole walk. */
  #source: Buffer | undefined;
  #discardLimit: DiscardLimit | undefined;

  /** `progress` is told the stream offset now and then. */
  constructor(files: ScanFiles, progress: (at: number) => void) {
    this.#files = files;
    this.#progress = progress;
  }

  get isMapped(): boolean {
    return this.blocks.some(({ mappedRam }) => mappedRam !== undefined);
  }

  opening(configuration: StreamConfiguration | undefined): void {
    const unknown = configuration?.capabilities?.find((name) => !KNOWN_CAPABILITIES.has(name));
    if (unknown !== undefined) {
      const message = `The guest was saved with the capability ${unknown}, which cannot be served`;
      const hint = "switch it off (migrate_set_capability), and save the guest again";
      throw new StreamError("UNSUPPORTED_CAPABILITY", message, { hint });
    }
    const pageSize = targetPageSizeOf(configuration);
    if (pageSize !== TARGET_PAGE_SIZE) {
      const message = `The guest has pages of ${pageSize} bytes, and only 4096 are known`;
      throw new StreamError("PAGE_SIZE", message);
    }
    this.machineType = configuration?.machine ?? "";
    if (configuration?.uuid !== undefined) this.uuid = uuidText(configuration.uuid);
  }

  ramStart(blocks: readonly WalkedBlock[]): void {
    checkTables(blocks, BYTES_A_PAGE);
    this.blocks = blocks;
    this.#discardLimit = new DiscardLimit(blocks.reduce((sum, { length }) => sum + length, 0));
    let base = 0;
    for (const { length, mappedRam } of blocks) {
      const pages = length / TARGET_PAGE_SIZE;
      this.#bases.push(base);
      base += length;
      this.where.push(new Float64Array(new SharedArrayBuffer(8 * pages)));
      if (mappedRam !== undefined) continue;
      this.sums.push(new Uint32Array(new SharedArrayBuffer(4 * pages)).fill(ZERO_PAGE_SUM));
    }
  }

  command(command: Command): void {
    if (command.kind !== "postcopyRamDiscard") return;
    this.#discardLimit?.take(command.ranges);
    const index = this.blocks.findIndex(({ name }) => name === command.block);
    for (const { start, length } of command.ranges) {
      const first = Math.floor(start / TARGET_PAGE_SIZE);
      const end = Math.ceil((start + length) / TARGET_PAGE_SIZE);
      this.where[index]?.fill(MISSING_PAGE, first, end);
    }
  }

  page(page: WalkedPage): void {
    const index = page.offset / TARGET_PAGE_SIZE;
    const where = this.where[page.block];
    const sums = this.sums[page.block];
    if (where === undefined || sums === undefined) throw new Error("a page of no block");
    if (index % PROGRESS_PAGES === 0) this.#progress(page.at);
    if (page.kind === "zero") {
      where[index] = ZERO_PAGE;
      sums[index] = ZERO_PAGE_SUM;
      return;
    }
    const bytes = this.#scratch.bytes;
    this.#decode(page, where[index] ?? MISSING_PAGE, sums[index] ?? 0);
    const sum = pageSum(bytes);
    sums[index] = sum;
    if (sum === ZERO_PAGE_SUM) where[index] = ZERO_PAGE;
    else if (page.kind === "normal" && this.#files.descriptor >= 0) where[index] = page.dataAt;
    else where[index] = this.#keep((this.#bases[page.block] ?? 0) + page.offset);
  }

  package(bytes: Uint8Array): void {
    this.devicePackage = bytes;
  }

  devices(bytes: Uint8Array, at: number): void {
    if (bytes.length === 0) {
      const message = `The file has guest memory and no device state (at byte ${at} of the stream)`;
      throw new StreamError("NO_DEVICE_STATE", message, {
        hint: "a guest cannot run without: save it with migrate, not as a memory dump",
      });
    }
    this.devicePackage = packageOfSections(bytes, at);
  }

  /** The page as it is now, in the scratch memory. */
  #decode(page: WalkedPage, where: number, sum: number): void {
    const { bytes } = this.#scratch;
    const { bytesAt, dataLength } = page;
    switch (page.kind) {
      case "compressed":
        inflatePage(page.bytes, bytesAt, dataLength, bytes, page.dataAt - bytesAt);
        break;
      case "xbzrle":
        this.#load(where, sum, page);
        decodeXbzrle(page.bytes, bytesAt, dataLength, bytes, page.dataAt - bytesAt);
        break;
      default:
        this.#source ??= Buffer.from(page.bytes.buffer, page.bytes.byteOffset, page.bytes.length);
        this.#source.copy(bytes, 0, bytesAt, bytesAt + dataLength);
    }
  }

  /** The page as it was before, which XBZRLE changes. */
  #load(where: number, sum: number, page: WalkedPage): void {
    const { address, bytes } = this.#scratch;
    if (where === MISSING_PAGE) {
      const what = `An XBZRLE page changes one that was discarded (at byte ${page.at} of the stream)`;
      throw new StreamError("BAD_PAGE", what);
    }
    if (where === ZERO_PAGE) {
      bytes.fill(0);
      return;
    }
    const fd = where < 0 ? this.#files.side().fd : this.#files.descriptor;
    const offset = where < 0 ? sideOffset(where) : where;
    const got = readAt(fd, address, TARGET_PAGE_SIZE, offset);
    if (got === TARGET_PAGE_SIZE && pageSum(bytes) === sum) return;
    const cause = got < 0 ? new SyscallError("pread", -got, `fd ${fd}`) : undefined;
    throw new StreamError("CANNOT_READ", "A page that was read before is not there any more", {
      cause,
    });
  }

  /** Writes the scratch page into the side file; the number that says where it is. */
  #keep(offset: number): number {
    const { address } = this.#scratch;
    const { fd, place } = this.#files.side();
    for (let done = 0; done < TARGET_PAGE_SIZE;) {
      const result = writeAt(fd, address + done, TARGET_PAGE_SIZE - done, offset + done);
      if (result <= 0) throw storeFailure("pwrite", -result, place);
      done += result;
    }
    this.sideBytes = Math.max(this.sideBytes, offset + TARGET_PAGE_SIZE);
    return inSideFile(offset);
  }
}
