/** Compression of the background push: whether the next chunk is compressed, and what came of it. */
import { targetPages } from "../ram/block.ts";
import { PACKED_RUN_PAGES_MAX, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { CompressionChooser } from "./compression-chooser.ts";
import type { SourceContext } from "./context.ts";
import type { PushOrder } from "./push-order.ts";
import type { RamWriter } from "./ram-writer.ts";
import { RunPacker } from "./run-packer.ts";
import { WORD } from "./shared.ts";

export class PushCompression {
  readonly #context: SourceContext;
  readonly #writer: RamWriter;
  readonly #chooser: CompressionChooser | undefined;
  readonly #packer = new RunPacker();
  /** A window is over: what compression yields is tried on the pages that come next. */
  #due = false;
  #began = performance.now();
  /** What the channel had waited by then. */
  #waitedMs: number;

  /** Between ends that did not choose it nothing is ever compressed. */
  constructor(context: SourceContext, writer: RamWriter) {
    this.#context = context;
    this.#writer = writer;
    this.#waitedMs = context.channel.waitedMs;
    const chosen = Atomics.load(context.shared.control, WORD.packedRuns) === 1;
    this.#chooser = chosen ? new CompressionChooser(context.settings.compression) : undefined;
  }

  /** Sets the writer's way for the chunk that begins where `order` stands; before its `begin`. */
  before(order: PushOrder): void {
    const chooser = this.#chooser;
    if (chooser === undefined) return;
    if (this.#due) {
      this.#due = false;
      if (!chooser.compressing) this.#sample(order);
      chooser.decide(this.#packer.sum);
      Object.assign(this.#packer.sum, { before: 0, after: 0, ms: 0 });
    }
    this.#writer.packer = chooser.compressing ? this.#packer : undefined;
  }

  /** Notes a chunk of `bytes` bytes, once it is written and what a limit has it wait is over. */
  after(bytes: number, sleptMs: number): void {
    if (this.#chooser === undefined) return;
    const now = performance.now();
    const waited = this.#context.channel.waitedMs;
    const waitedMs = waited - this.#waitedMs + sleptMs;
    this.#due = this.#chooser.note({ bytes, ms: now - this.#began, waitedMs });
    this.#began = now;
    this.#waitedMs = waited;
  }

  /** Packs the pages that come next, without sending them so. */
  #sample({ block, hostPage }: PushOrder): void {
    const offset = hostPage * block.pageSize;
    const left = targetPages(block) - offset / TARGET_PAGE_SIZE;
    this.#writer.tryPacking(this.#packer, block, offset, Math.min(PACKED_RUN_PAGES_MAX, left));
  }
}
