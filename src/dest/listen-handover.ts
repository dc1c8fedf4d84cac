/**
 * What the incoming thread hands over at LISTEN: the memory to the fault thread, then the stream to the
 * listen thread. The first part of it can be done while the guest still runs at the source.
 */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import { pageSizeSummary } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { awaitThread } from "./context.ts";
import type { IncomingContext } from "./context.ts";
import { openHostUserfault } from "./host-userfault.ts";
import { WORD } from "./shared.ts";

export class ListenHandover {
  readonly #context: IncomingContext;
  /** Of a guest that runs in this process. */
  #userfault: Userfault | undefined;
  #prepared = false;

  constructor(context: IncomingContext) {
    this.#context = context;
  }

  /** Whether the fault thread may have begun. */
  get isPrepared(): boolean {
    return this.#prepared;
  }

  /** Opens the userfaultfd, and lets the fault thread begin. @throws HostError. */
  prepare(blocks: readonly RamBlock[]): void {
    const { guest, shared, emit } = this.#context;
    this.#prepared = true;
    if (guest.memory === "userfault") {
      const warn = (message: string): void => emit({ kind: "warning", message });
      this.#userfault = openHostUserfault(pageSizeSummary(blocks), warn);
      Atomics.store(shared.control, WORD.userfaultFd, this.#userfault.fd);
    }
    shared.faultStart.post();
  }

  /** Prepares what is not, registers the memory, and lets go of the stream: both threads are at work then. */
  complete(blocks: readonly RamBlock[]): void {
    const { channel, shared } = this.#context;
    if (!this.#prepared) this.prepare(blocks);
    awaitThread(shared, (ms) => shared.faultThreadSem.wait(ms));
    awaitThread(shared, (ms) => shared.listenThreadSem.wait(ms));
    if (this.#userfault !== undefined) register(this.#userfault, blocks);
    const { address, length, pos, end, base } = channel.position();
    shared.position.set([address, length, pos, end, base]);
    shared.listenStart.post();
  }
}

function register(userfault: Userfault, blocks: readonly RamBlock[]): void {
  for (const { address, length } of blocks) {
    userfault.register(address, length, UFFD.UFFDIO_REGISTER_MODE_MISSING);
  }
}
