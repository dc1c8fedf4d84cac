/** Who waits where memory was taken away while nobody read the events is not forgotten. */
import { expect } from "bun:test";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { mapScratch, putU64 } from "../../../syscalls/memory.ts";
import { EVENT_BUFFER_BYTES } from "../../../syscalls/userfaultfd.ts";
import { takeLeftEvents } from "../../../src/dest/left-events.ts";
import type * as GuestMemory from "../../fixtures/guest-memory.ts";
import { ArrivingMemory } from "../../helpers/arriving-memory.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { startThread } from "../../helpers/test-thread.ts";

const PAGE = 4096;
const userfaultTest = requireOrSkip(needUserfaultfd());
const GUEST = import.meta.resolve("../../fixtures/guest-memory.ts");
/** Where nothing is: memory is said to have been moved there. */
const ELSEWHERE = 2 ** 41;

for (const kind of ["unmap", "remap"] as const) {
  userfaultTest(`who waits in memory of which an ${kind} was read faults once more`, async () => {
    using arriving = new ArrivingMemory();
    await using guest = await startThread<typeof GuestMemory>(GUEST);
    const { address, length } = arriving.block(1);
    const target = address + 3 * PAGE;
    const reading = guest.call("readWord", target);
    const fault = { kind: "fault", address: target };
    expect(arriving.memory.events()).toMatchObject([fault]);
    const buffer = mapScratch(EVENT_BUFFER_BYTES);
    const unmap = [UFFD.UFFD_EVENT_UNMAP, address, address + length] as const;
    const remap = [UFFD.UFFD_EVENT_REMAP, address, ELSEWHERE, length] as const;
    const [event, ...numbers] = kind === "unmap" ? unmap : remap;
    buffer.view.setUint8(0, event);
    numbers.forEach((number, index) => putU64(buffer.view, 8 + index * 8, number));
    takeLeftEvents(arriving, buffer.address);
    expect(arriving.map.pieceAt(target)).toBe(-1);
    expect(arriving.memory.events()).toMatchObject([fault]);
    arriving.memory.userfault.zero(target, PAGE);
    expect(await reading).toBe(0);
  });
}
