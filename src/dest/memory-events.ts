/**
 * The events of a userfaultfd, as the fault thread reads them: what the guest's owner does to its memory
 * is noted at once, and faults are put by until somebody looks at them.
 */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import type { Userfault, UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import type { Favour } from "../sync/favour.ts";
import { PostcopyError } from "../util/errors.ts";
import { pauseForEvents } from "./events-pause.ts";
import { MemoryChanges } from "./memory-changes.ts";
import type { ChangingMemory } from "./memory-changes.ts";

/** In the place of a fault whose address is no memory of the guest any more. */
export const NOWHERE = -1;

export class MemoryEvents {
  /** Addresses of faults that were not looked at yet (or NOWHERE). Whoever looks takes them out. */
  readonly faults: number[] = [];
  /** Those on pages that are in the page cache, and only not mapped. */
  readonly minorFaults: number[] = [];
  readonly #memory: ChangingMemory;
  readonly #userfault: Userfault | undefined;
  readonly #favour: Favour;
  readonly #changes: MemoryChanges;

  /** `favour` is that of the calling thread. */
  constructor(memory: ChangingMemory, userfault: Userfault | undefined, favour: Favour) {
    this.#memory = memory;
    this.#userfault = userfault;
    this.#favour = favour;
    this.#changes = new MemoryChanges(memory, userfault);
  }

  /**
   * Reads the events that wait. What the guest discarded is noted before any page can be placed
   * again, which is what the locks are for; the faults are looked at later.
   */
  drain(): void {
    const { shared } = this.#memory;
    shared.placingLocks.lockAll(this.#favour);
    try {
      this.#userfault?.readEvents((event) => this.#take(event));
    } finally {
      shared.placingLocks.unlockAll();
    }
  }

  /**
   * What to do about EAGAIN: reads the events, and leaves the processor for a moment. The kernel says
   * EAGAIN until the thread of the guest has run that discarded something, which it cannot where this
   * one keeps its processor in real time.
   */
  makeWay(): void {
    this.drain();
    pauseForEvents();
  }

  #take(event: UserfaultEvent): void {
    switch (event.kind) {
      case "fault":
        this.#takeFault(event);
        break;
      case "remove":
        this.#changes.noteRemoved(event.start, event.end);
        break;
      case "unmap":
        this.#changes.noteUnmapped(event.start, event.end);
        this.#letGo(event.start, event.end);
        break;
      case "remap":
        this.#changes.noteMoved(event.from, event.to, event.length);
        this.#letGo(event.from, event.from + event.length);
        break;
      case "fork":
        closeDescriptor(event.fd);
        throw new PostcopyError("VMM_FORKED", "The VMM has forked while its memory was filled", {
          hint: "the child would see zeros: fork before the handover, or not at all",
        });
    }
  }

  #takeFault({ cause, address }: Extract<UserfaultEvent, { kind: "fault" }>): void {
    if (cause === "missing") this.faults.push(address);
    else if (cause === "minor") this.minorFaults.push(address);
    else {
      const where = `0x${address.toString(16)}`;
      throw new PostcopyError(
        "WRITE_PROTECTED",
        `The VMM has write-protected its page at ${where}, and lets others answer the fault there`,
        { hint: "who protects a page has to lift it: hand over without UFFDIO_WRITEPROTECT" },
      );
    }
  }

  /**
   * [start, end) is no memory of the guest any more: pages that come are placed elsewhere or nowhere,
   * so whoever waits there has to look again at what there is.
   */
  #letGo(start: number, end: number): void {
    // In place: they may be gone through just now.
    for (const faults of [this.faults, this.minorFaults]) {
      for (const [index, address] of faults.entries()) {
        if (address >= start && address < end) faults[index] = NOWHERE;
      }
    }
    this.#userfault?.wake(start, end - start);
  }
}
