/**
 * What a process that was killed had read of a VMM's userfaultfd and not acted on. The kernel tells an
 * event once: it is in the buffer that outlived the process, or nowhere. A fault is told once as well,
 * but to wake who waits makes him fault again.
 */
import { SyscallError } from "../../syscalls/error.ts";
import { BASE_PAGE_BYTES, mlock } from "../../syscalls/memory.ts";
import { Userfault } from "../../syscalls/userfaultfd.ts";
import type { UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { PostcopyError } from "../util/errors.ts";
import { MemoryChanges } from "./memory-changes.ts";
import type { ChangingMemory } from "./memory-changes.ts";
import { WORD } from "./shared.ts";

/**
 * Acts on what is left in the buffer at `eventsAt`, then wakes everybody. To be called before any page
 * is placed, and before it is counted how many are missing.
 * @throws PostcopyError VMM_FORKED, PART_OF_PAGE.
 */
export function takeLeftEvents(memory: ChangingMemory, eventsAt: number): void {
  const fd = Atomics.load(memory.shared.control, WORD.userfaultFd);
  const userfault = new Userfault(fd, eventsAt);
  const changes = new MemoryChanges(memory, userfault);
  userfault.leftEvents((event) => {
    take(event, changes, memory.map);
    // Who waits where nothing lies any more is in no piece.
    if (event.kind === "unmap") userfault.wake(event.start, event.end - event.start);
    if (event.kind === "remap") userfault.wake(event.from, event.length);
  });
  for (const { address, length } of memory.map.pieces()) userfault.wake(address, length);
}

/**
 * Keeps the page of the buffer at `eventsAt` in memory: the kernel has taken an event off its list
 * before it writes it there, so one that cannot be written is lost.
 */
export function pinEvents(eventsAt: number, warn: (message: string) => void): void {
  try {
    mlock(eventsAt, BASE_PAGE_BYTES);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    warn(
      "The page that the VMM's events are read into cannot be kept in memory (ulimit -l): on a host " +
        `without memory left an event could be lost: ${error.message}`,
    );
  }
}

function take(event: UserfaultEvent, changes: MemoryChanges, map: AddressMap): void {
  switch (event.kind) {
    case "fault":
      break;
    case "remove":
      changes.noteRemoved(event.start, event.end);
      break;
    case "unmap":
      changes.noteUnmapped(event.start, event.end);
      break;
    case "remap":
      // One that was acted on has left nothing there: acted on again it would discard what was moved.
      if (hasPart(event.from, event.from + event.length, map)) {
        changes.noteMoved(event.from, event.to, event.length);
      }
      break;
    case "fork":
      // Its descriptor was that of the other process, and ended with it.
      throw new PostcopyError("VMM_FORKED", "The VMM has forked while its memory was filled");
  }
}

function hasPart(start: number, end: number, map: AddressMap): boolean {
  let found = false;
  map.forEachPart(start, end, () => {
    found = true;
  });
  return found;
}
