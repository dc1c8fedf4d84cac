/**
 * What a process that was killed had read of a VMM's userfaultfd and not acted on. The kernel tells an
 * event once: it is in the buffer that outlived the process, or nowhere. A fault is told once as well,
 * but to wake who waits makes him fault again.
 */
import { Userfault } from "../../syscalls/userfaultfd.ts";
import type { UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PostcopyError } from "../util/errors.ts";
import type { PageState } from "./shared.ts";

export interface LeftBehind {
  userfaultFd: number;
  /** Where the events are that were read. */
  eventsAt: number;
  map: AddressMap;
  pages: Pick<PageState, "received" | "removed">;
}

/**
 * Acts on what is left, then wakes everybody. To be called before any page is placed.
 * @throws PostcopyError VMM_FORKED.
 */
export function takeLeftEvents({ userfaultFd, eventsAt, map, pages }: LeftBehind): void {
  const userfault = new Userfault(userfaultFd, eventsAt);
  userfault.leftEvents((event) => take(event, map, pages));
  for (const { address, length } of map.pieces()) userfault.wake(address, length);
}

function take(event: UserfaultEvent, map: AddressMap, pages: LeftBehind["pages"]): void {
  switch (event.kind) {
    case "fault":
      break;
    case "remove":
      noteRemoved(event.start, event.end, map, pages);
      break;
    case "unmap":
      noteRemoved(event.start, event.end, map, pages);
      map.unmap(event.start, event.end);
      break;
    case "remap": {
      const { from, to, length } = event;
      // One that was acted on already has left nothing there.
      if (!hasPart(from, from + length, map)) break;
      noteRemoved(to, to + length, map, pages);
      map.move(from, to, length);
      break;
    }
    case "fork":
      // Its descriptor was that of the other process, and ended with it.
      throw new PostcopyError("VMM_FORKED", "The VMM has forked while its memory was filled");
  }
}

function noteRemoved(
  start: number,
  end: number,
  map: AddressMap,
  { received, removed }: LeftBehind["pages"],
): void {
  map.forEachPart(start, end, (block, offset, length) => {
    const [first, count] = [offset / TARGET_PAGE_SIZE, length / TARGET_PAGE_SIZE];
    removed[block]?.setRange(first, count);
    received[block]?.setRange(first, count);
  });
}

function hasPart(start: number, end: number, map: AddressMap): boolean {
  let found = false;
  map.forEachPart(start, end, () => {
    found = true;
  });
  return found;
}
