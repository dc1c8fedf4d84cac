/**
 * The end of filling a VMM's memory: it becomes memory like any other. The VMM keeps its userfaultfd,
 * so nobody is woken by our closing it: whoever waits for an event to be read would wait for ever.
 */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { check } from "../../syscalls/error.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { BASE_PAGE_BYTES } from "../../syscalls/memory.ts";
import type { Userfault, UserfaultEvent } from "../../syscalls/userfaultfd.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { PageBitmap } from "../ram/bitmap.ts";
import { targetPages } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import type { SharedBytes } from "../ram/shared-bytes.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";
import { pauseForEvents } from "./events-pause.ts";
import type { PageState } from "./shared.ts";

/** Refuses a guest whose pages change while it is sent. */
export function liveSource(): StreamError {
  const what = "The source sends a guest that runs: a VMM's memory can be filled only once";
  return new StreamError("LIVE_SOURCE", what, {
    hint: "keep the guest first (dest --guest snapshot:DIRECTORY), then send what was kept",
  });
}

/** Only a guest that is written to while it is sent has pages that change once they were sent. */
export function requireNotPlaced(
  pages: PageState | undefined,
  { index }: RamBlock,
  first: number,
  end: number,
): void {
  const [received, removed] = [pages?.received[index], pages?.removed[index]];
  for (let page = received?.nextSet(first, end) ?? -1; page >= 0;) {
    if (removed?.test(page) !== true) throw liveSource();
    page = received?.nextSet(page + 1, end) ?? -1;
  }
}

/**
 * What stands still is discarded as a whole; else somebody may wait for a page that never comes. To be
 * called before such a page counts as zeros: the VMM runs, and would be given them.
 */
export function requireAllDiscarded(
  { received }: PageState,
  discarded: readonly PageBitmap[],
): void {
  for (const [index, bits] of discarded.entries()) {
    received[index]?.forEachClearRange((first, end) => {
      if (bits.nextClear(first, end) >= end) return;
      const what = "The source has pages that it neither sent nor discarded";
      throw new StreamError("UNEXPECTED", what);
    });
  }
}

/**
 * Begins the page state of a VMM's memory: nothing of what the map covers has come, and what no region
 * of the VMM covers is done with.
 */
export function coverOnly(
  map: AddressMap,
  received: readonly SharedBytes[],
  removed: readonly SharedBytes[],
  blocks: readonly RamBlock[],
): void {
  for (const bitmaps of [received, removed]) {
    const bits = blocks.map((block, index) => new PageBitmap(targetPages(block), bitmaps[index]));
    bits.forEach((bitmap) => bitmap.setAll());
    for (const { block, offset, length } of map.pieces()) {
      bits[block]?.clearRange(offset / TARGET_PAGE_SIZE, length / TARGET_PAGE_SIZE);
    }
  }
}

/**
 * Unregisters all of it, and lets every thread of the VMM go on that waits.
 * @throws PostcopyError STILL_REGISTERED where the kernel lets it not be.
 */
export function releaseForeignMemory(
  userfault: Userfault,
  map: AddressMap,
  blocks: readonly RamBlock[],
): void {
  const unregisterAll = (): boolean =>
    map.pieces().every(({ address, length, block }) => {
      const pageSize = blocks[block]?.pageSize ?? TARGET_PAGE_SIZE;
      return unregister(userfault, address, length, pageSize);
    });
  // What is moved just now is where it was no more, and not yet known to be where it is.
  while (unregisterAll() && finishEvents(userfault, map));
}

/**
 * False when the VMM has ended. The kernel refuses as a whole (EINVAL) where nothing is mapped, but also
 * where one mapping among others is of a kind that no userfaultfd can have, as a VMM may have put it in
 * the place of its memory unheard: halves are tried, down to the pages that are none.
 */
function unregister(
  userfault: Userfault,
  address: number,
  length: number,
  pageSize: number,
): boolean {
  const result = userfault.tryUnregister(address, length);
  if (result === -ERRNO.EINVAL) {
    if (length <= pageSize) return true;
    const half = Math.ceil(length / pageSize / 2) * pageSize;
    return (
      unregister(userfault, address, half, pageSize) &&
      unregister(userfault, address + half, length - half, pageSize)
    );
  }
  if (result === -ERRNO.ESRCH) return false;
  if (result === -ERRNO.ENOMEM) {
    // With all of its pages a VMM may end when it likes; placing says ESRCH then. What is missing now
    // was given back: it is zeros.
    if (userfault.zero(address, BASE_PAGE_BYTES) === -ERRNO.ESRCH) return false;
    throw stillRegistered(address, length);
  }
  check("ioctl", result, `UFFDIO_UNREGISTER, ${length} bytes`);
  return true;
}

function stillRegistered(address: number, length: number): PostcopyError {
  const where = `0x${address.toString(16)}`;
  const what = `The kernel has no room to unregister ${length} bytes at ${where} of the VMM`;
  return new PostcopyError("STILL_REGISTERED", `${what}: it may have too many mappings`, {
    hint: "sysctl vm.max_map_count; register each region as a mapping of its own",
  });
}

/**
 * Reads events until none is under way; whether memory was moved. An event that a thread has begun and not
 * queued yet cannot be read, but the kernel says EAGAIN to whoever places a page meanwhile; and when there
 * is none, that the address is not registered.
 */
function finishEvents(userfault: Userfault, map: AddressMap): boolean {
  const [address = 0] = map.pieces().map((piece) => piece.address);
  let moved = false;
  const take = (event: UserfaultEvent): void => {
    if (event.kind === "fork") closeDescriptor(event.fd);
    if (event.kind === "unmap") map.unmap(event.start, event.end);
    if (event.kind !== "remap") return;
    map.move(event.from, event.to, event.length);
    moved = true;
  };
  for (;;) {
    while (userfault.readEvents(take) > 0);
    if (userfault.zero(address, BASE_PAGE_BYTES) !== -ERRNO.EAGAIN) return moved;
    pauseForEvents();
  }
}
