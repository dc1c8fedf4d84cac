/**
 * Compression of the background push: whether the next chunk is compressed, and what came of it. The
 * link must not wait for a processor that is little faster: where it would, the chunk goes as it is, so
 * that both have something to do all the time.
 */
import { unsentBytes } from "../../syscalls/socket.ts";
import { targetPages } from "../ram/block.ts";
import { PACKED_RUN_PAGES_MAX, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { CompressionChooser } from "./compression-chooser.ts";
import type { SourceContext } from "./context.ts";
import type { PushOrder } from "./push-order.ts";
import type { RamWriter } from "./ram-writer.ts";
import { RunPacker } from "./run-packer.ts";
import { WORD } from "./shared.ts";

/** What of a source's context it is about. */
type CompressedPush = Pick<SourceContext, "channel" | "settings" | "shared">;

export class PushCompression {
  readonly #context: CompressedPush;
  readonly #writer: RamWriter;
  readonly #chooser: CompressionChooser | undefined;
  readonly #packer = new RunPacker();
  /** A window is over: what compression yields is tried on the pages that come next. */
  #due = false;
  #began: number;
  /** What the channel had waited by then. */
  #waitedMs: number;
  readonly #chunkBytes: number;
  /** What the link has in store; undefined where nobody knows. */
  #store: number | undefined;

  readonly #clock: () => number;
  readonly #unsent: typeof unsentBytes;

  /**
   * Between ends that did not choose it nothing is ever compressed. `chunkBytes` are those of a chunk as
   * it is; `clock` is in milliseconds.
   */
  constructor(
    context: CompressedPush,
    writer: RamWriter,
    chunkBytes: number,
    clock = () => performance.now(),
    unsent = unsentBytes,
  ) {
    this.#clock = clock;
    this.#unsent = unsent;
    this.#began = clock();
    this.#context = context;
    this.#writer = writer;
    this.#waitedMs = context.channel.waitedMs;
    this.#store = unsent(context.channel.fd);
    this.#chunkBytes = chunkBytes;
    const chosen = Atomics.load(context.shared.control, WORD.packedRuns) === 1;
    this.#chooser = chosen ? new CompressionChooser(context.settings.compression) : undefined;
  }

  /** Sets the writer's way for the chunk that begins where `order` stands; before its `begin`. */
  before(order: PushOrder): void {
    const chooser = this.#chooser;
    if (chooser === undefined) return;
    if (this.#due) {
      this.#due = false;
      const { sum } = this.#packer;
      // Also where the link had no time for any chunk of it: another look says whether it has now.
      const plain = sum.before === 0;
      if (plain) this.#sample(order);
      chooser.decide(sum, plain);
      Object.assign(sum, { before: 0, after: 0, ms: 0 });
    }
    const compressing = chooser.compressing && this.#hasTime(chooser);
    this.#writer.packer = compressing ? this.#packer : undefined;
  }

  /** Whether the link has enough to do until a chunk is compressed; a limit of the push waits anyway. */
  #hasTime(chooser: CompressionChooser): boolean {
    const { settings } = this.#context;
    if (settings.compression === "zstd" || settings.maxPostcopyBandwidth > 0) return true;
    return (this.#store ?? Infinity) >= chooser.takenWhile(this.#chunkBytes);
  }

  /** Notes a chunk of `bytes` bytes, once it is written and what a limit has it wait is over. */
  after(bytes: number, sleptMs: number): void {
    if (this.#chooser === undefined) return;
    const now = this.#clock();
    const { fd, waitedMs: waited } = this.#context.channel;
    const waitedMs = waited - this.#waitedMs + sleptMs;
    const store = this.#unsent(fd);
    const taken = bytes - ((store ?? 0) - (this.#store ?? 0));
    this.#due = this.#chooser.note({ bytes: taken, ms: now - this.#began, waitedMs });
    this.#store = store;
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
