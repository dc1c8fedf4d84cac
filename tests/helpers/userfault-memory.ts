/** Memory of this process whose missing pages fault to a test. */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { POLL, PollSet } from "../../syscalls/descriptor.ts";
import { mapAnonymous, mapScratch, scratchAt } from "../../syscalls/memory.ts";
import type { Mapping, Scratch } from "../../syscalls/memory.ts";
import { openUserfault } from "../../syscalls/userfaultfd.ts";
import type { Userfault, UserfaultEvent } from "../../syscalls/userfaultfd.ts";

const PAGE_BYTES = 4096;
const EVENT_LIMIT_MS = 10_000;

export class UserfaultMemory implements Disposable {
  readonly userfault: Userfault;
  readonly address: number;
  readonly pages: number;
  /** What `register` said. */
  readonly ioctls: number;
  readonly #mapping: Mapping;
  readonly #poll = new PollSet();
  readonly #pageBytes: number;

  constructor(pages: number, features: number, pageBytes = PAGE_BYTES) {
    this.pages = pages;
    this.#pageBytes = pageBytes;
    this.#mapping = mapAnonymous(pages * pageBytes, { pageSize: pageBytes });
    this.address = this.#mapping.address;
    this.userfault = openUserfault().userfault;
    this.userfault.enable(features);
    const mode = UFFD.UFFDIO_REGISTER_MODE_MISSING;
    this.ioctls = this.userfault.register(this.address, pages * pageBytes, mode);
    this.#poll.add(this.userfault.fd, POLL.POLLIN);
  }

  /** Where a page begins. */
  page(index: number): number {
    return this.address + index * this.#pageBytes;
  }

  /** Waits until an event can be read, and leaves it there. */
  awaitEvent(): void {
    if (this.#poll.wait(EVENT_LIMIT_MS) === 0) throw new Error("no event of userfaultfd came");
  }

  /** Waits for events and takes all that are there. */
  events(): UserfaultEvent[] {
    this.awaitEvent();
    const taken: UserfaultEvent[] = [];
    this.userfault.readEvents((event) => taken.push(event));
    return taken;
  }

  /** Whether an event waits to be read. */
  get hasEvents(): boolean {
    return this.#poll.wait(0) > 0;
  }

  /** Bytes of a page, which must be there. */
  bytes(index: number): Uint8Array {
    return scratchAt(this.page(index), this.#pageBytes).bytes;
  }

  [Symbol.dispose](): void {
    // Whoever still waits in a fault goes on, with zeros.
    this.userfault.unregister(this.address, this.pages * this.#pageBytes);
    this.userfault.close();
    // Huge pages go back to the pool. Others stay mapped: a thread that a failed test left behind
    // may still touch them, and would take the whole run with it.
    if (this.#pageBytes !== PAGE_BYTES) this.#mapping[Symbol.dispose]();
  }
}

/** Pages to copy from: page i of it is full of bytes i + 1. */
export function patternPages(count: number): Scratch {
  const scratch = mapScratch(count * PAGE_BYTES);
  for (let i = 0; i < count; i++) {
    scratch.bytes.fill(i + 1, i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
  }
  return scratch;
}
