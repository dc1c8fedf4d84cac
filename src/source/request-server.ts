/** Page requests at the source: what is asked for is sent at once, by the thread that reads of it. */
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { PageBitmap } from "../ram/bitmap.ts";
import type { RamBlock } from "../ram/block.ts";
import { pagesBefore, targetPages, targetPagesPerHostPage } from "../ram/block.ts";
import { SOURCE } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import type { SourceContext } from "./context.ts";
import { followHostPages } from "./host-pages.ts";
import type { RamWriter } from "./ram-writer.ts";
import { addHostPages, noteSent } from "./send-pages.ts";
import { RECORD_PAGES_MAX, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";
import { RAM_SECTION_ID } from "./stream.ts";

/** Copied bytes of a requested huge page that go at once: the rest is copied while these travel. */
const REQUESTED_PIECE_BYTES = 128 * 1024;

/** Answers the page requests of one link; owned by the thread that reads them. */
export class RequestServer {
  readonly #blocks: readonly RamBlock[];
  readonly #shared: SourceShared;
  readonly #writer: RamWriter;
  readonly #main: Channel;
  readonly #openUrgent: (fd: number) => Channel;
  #urgent: Channel | undefined;
  /** One bit a host page, by block: those that were sent once more over this link. */
  readonly #repeated: readonly PageBitmap[];

  constructor(
    context: Pick<SourceContext, "shared" | "makeWriter" | "channel" | "openChannel">,
    blocks: readonly RamBlock[],
  ) {
    this.#blocks = blocks;
    this.#shared = context.shared;
    this.#writer = context.makeWriter();
    this.#writer.kind = KIND.request;
    this.#writer.pieceBytes = REQUESTED_PIECE_BYTES;
    this.#main = context.channel;
    this.#openUrgent = context.openChannel;
    // Room for the smallest host pages: which the guest has may be chosen later.
    this.#repeated = blocks.map((block) => new PageBitmap(targetPages(block)));
  }

  /**
   * Sends those host pages of [start, start + length) that are still owed, on the urgent channel
   * if there is one. Returns how many host pages that were.
   */
  serve(block: RamBlock, start: number, length: number): number {
    const urgentFd = Atomics.load(this.#shared.control, WORD.urgentFd);
    if (urgentFd >= 0 && this.#urgent === undefined) this.#urgent = this.#openUrgent(urgentFd);
    const channel = this.#urgent ?? this.#main;
    const lock = this.#urgent === undefined ? this.#shared.mainLock : this.#shared.urgentLock;
    const sectionId = this.#urgent === undefined ? RAM_SECTION_ID : undefined;
    lock.lockUrgent();
    try {
      followHostPages(this.#shared, this.#blocks);
      const served = this.#send(block, start, length, channel, sectionId);
      if (served === 0 && this.#urgent !== undefined) this.#repeat(block, start, this.#urgent);
      return served;
    } finally {
      lock.unlock();
    }
  }

  #send(
    block: RamBlock,
    start: number,
    length: number,
    channel: Channel,
    sectionId: number | undefined,
  ): number {
    const { counters } = this.#shared;
    const owed = this.#shared.owed[block.index];
    const writer = this.#writer;
    this.#setWay(block);
    const before = channel.bytesWritten;
    const flush = (): void => {
      channel.writeAll(writer.finish());
      counters.add(SOURCE.pagesRequested, writer.normal);
      counters.add(SOURCE.pagesRequestedZero, writer.zero);
      writer.begin(sectionId);
    };
    writer.begin(sectionId);
    const first = start / block.pageSize;
    const end = Math.ceil((start + length) / block.pageSize);
    let served = 0;
    for (let hostPage = first; hostPage < end; hostPage++) {
      if (!owed?.claim(hostPage)) continue;
      addHostPages(writer, block, hostPage, 1, flush);
      noteSent(this.#shared, block, hostPage, 1);
      served++;
    }
    if (writer.normal + writer.zero > 0) flush();
    counters.add(SOURCE.bytesRequested, channel.bytesWritten - before);
    const pagesAhead = pagesBefore(this.#blocks, block);
    this.#record(pagesAhead + first * targetPagesPerHostPage(block));
    if (served > 0) {
      const next = pagesAhead + end * targetPagesPerHostPage(block);
      Atomics.store(this.#shared.control, WORD.pushHint, next);
    }
    return served;
  }

  /**
   * Sends a page that has been sent before, where the peer takes one: it is under way among the push,
   * behind all that was pushed before it. Once is enough, however often it is asked for.
   */
  #repeat(block: RamBlock, start: number, channel: Channel): void {
    const { control, counters } = this.#shared;
    if (Atomics.load(control, WORD.repeats) === 0) return;
    const hostPage = start / block.pageSize;
    if (this.#repeated[block.index]?.set(hostPage) !== true) return;
    const writer = this.#writer;
    this.#setWay(block);
    const before = channel.bytesWritten;
    const flush = (): void => {
      channel.writeAll(writer.finish());
      counters.add(SOURCE.pagesRepeated, writer.normal + writer.zero);
      writer.begin(undefined);
    };
    writer.begin(undefined);
    try {
      addHostPages(writer, block, hostPage, 1, flush);
      if (writer.normal + writer.zero > 0) flush();
    } catch (error) {
      // The page has come meanwhile, and it was the last: the peer is done.
      if (error instanceof ChannelError && Atomics.load(control, WORD.ended) === 1) return;
      throw error;
    }
    counters.add(SOURCE.bytesRequested, channel.bytesWritten - before);
  }

  /** A small page is copied into its one record; of a huge one the kernel takes runs where they lie. */
  #setWay({ pageSize }: RamBlock): void {
    const writer = this.#writer;
    writer.runs = Atomics.load(this.#shared.control, WORD.pageRuns) === 1;
    writer.copying = pageSize === TARGET_PAGE_SIZE || !writer.canGather;
  }

  /** Notes which page was asked for: what a guest touches first it touches first again. */
  #record(page: number): void {
    const { control, firstRequests } = this.#shared;
    const recorded = Atomics.load(control, WORD.recorded);
    if (recorded === RECORD_PAGES_MAX) return;
    firstRequests[recorded] = page;
    Atomics.store(control, WORD.recorded, recorded + 1);
  }
}
