/** What outlives a dest that is killed: written by one process's threads, read by the next one's. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { readSync, writeSync } from "node:fs";
import { sealedLength } from "../../../syscalls/memfd.ts";
import { EVENT_BUFFER_BYTES, openUserfault } from "../../../syscalls/userfaultfd.ts";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { mapAnonymous, putU64, scratchAt, viewMemory } from "../../../syscalls/memory.ts";
import { takeLeftEvents } from "../../../src/dest/left-events.ts";
import type { KeptPages } from "../../../src/dest/guest.ts";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  WORD,
} from "../../../src/dest/shared.ts";
import { KeptState } from "../../../src/guests/uffd/kept-state.ts";
import { AddressMap } from "../../../src/ram/address-map.ts";
import { PageBitmap } from "../../../src/ram/bitmap.ts";
import { targetPages } from "../../../src/ram/block.ts";
import { identityOfText } from "../../../src/stream/identity.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { spawn } from "../../helpers/spawn.ts";

const PAGE = 4096;
const BLOCKS = [100, 7].map((pages, index) => {
  return { index, name: `block ${index}`, length: pages * PAGE, pageSize: PAGE, address: 0 };
});
/** All of the first block but its first ten pages, and nothing of the second. */
const REGIONS = [{ address: 2 ** 40, length: 90 * PAGE, offset: 10 * PAGE, pageSize: PAGE }];
const FACTS = { ramSectionId: 2, sourceIsOurs: true };

/** The bits of a kept bitmap. */
function bits(which: "received" | "removed", kept: KeptPages, index: number): PageBitmap {
  const block = BLOCKS[index];
  if (block === undefined) throw new Error("no block");
  return new PageBitmap(targetPages(block), kept[which][index]);
}

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof PostcopyError) return `${error.code} ${error.message}`;
    throw error;
  }
  throw new Error("it was not refused");
}

test("the next process finds the VMM, its blocks, each bit, and where memory lies", () => {
  using descriptors = new Descriptors();
  const first = KeptState.begin(123, REGIONS);
  descriptors.add(first.fd);
  const kept = first.prepare(BLOCKS);
  expect(kept.again).toBe(false);
  expect(bits("received", kept, 0).count()).toBe(10);
  expect(bits("removed", kept, 1).count()).toBe(7);
  const second = new KeptState(first.fd);
  expect(second).toMatchObject({ pid: 123, regions: REGIONS, isTakenOver: false });
  first.takeOver(FACTS);
  // As threads do, after the other one has opened it.
  bits("received", kept, 0).setRange(20, 5);
  bits("removed", kept, 0).setRange(30, 2);
  new AddressMap(kept.map).unmap(2 ** 40, 2 ** 40 + PAGE);
  expect(second.isTakenOver).toBe(true);
  expect(second.facts).toEqual(FACTS);
  const { blocks, ...found } = second.reopen();
  expect(blocks).toEqual(BLOCKS);
  expect(found.again).toBe(true);
  expect(bits("received", found, 0).count()).toBe(15);
  expect(bits("removed", found, 0).test(31)).toBe(true);
  expect(new AddressMap(found.map).pieces()).toEqual([
    { address: 2 ** 40 + PAGE, length: 89 * PAGE, block: 0, offset: 11 * PAGE },
  ]);
});

test("a source that begins anew sends what was placed again, but not what was discarded", () => {
  using descriptors = new Descriptors();
  const first = KeptState.begin(123, REGIONS);
  descriptors.add(first.fd);
  const kept = first.prepare(BLOCKS);
  bits("received", kept, 0).setRange(20, 5);
  for (const which of ["received", "removed"] as const) bits(which, kept, 0).setRange(30, 2);
  const again = new KeptState(first.fd).prepare(BLOCKS);
  expect(again.again).toBe(true);
  expect([...bits("received", again, 0).bytes]).toEqual([...bits("removed", again, 0).bytes]);
  expect(bits("received", again, 0).count()).toBe(12);
  const other = BLOCKS.map((block) => ({ ...block, name: `other ${block.index}` }));
  expect(refusal(() => new KeptState(first.fd).prepare(other))).toStartWith("OTHER_BLOCKS");
});

test("the pages of two guests are not mixed, once any may have been placed", () => {
  using descriptors = new Descriptors();
  const first = KeptState.begin(123, REGIONS);
  descriptors.add(first.fd);
  const fillFrom = (identity: string): void => new KeptState(first.fd).requireGuest(identity);
  const [guest, another] = [identityOfText("a guest"), identityOfText("another")];
  first.prepare(BLOCKS);
  for (const identity of [another, guest]) fillFrom(identity);
  expect(first.identity).toBeUndefined();
  // Of a source that does not say which guest it has.
  first.bind(undefined);
  expect(refusal(() => fillFrom(guest))).toContain("of which it is not known whether");
  first.bind(guest);
  for (const identity of [undefined, another]) first.bind(identity);
  fillFrom(guest);
  expect(new KeptState(first.fd).facts.identity).toBe(guest);
  expect(refusal(() => fillFrom(another))).toStartWith(
    "OTHER_GUEST The VMM has pages of another guest than the one of these files",
  );
});

test("only one process is at it: another one waits until it is gone, or is refused", async () => {
  using descriptors = new Descriptors();
  const { fd } = KeptState.begin(123, REGIONS);
  descriptors.add(fd);
  // Another process has the same opening of the file, which a lock would be shared by.
  const path = `/proc/${process.pid}/fd/${fd}`;
  const code = 'exec 9<>"$0"; flock -x 9; echo locked; read line';
  await using other = spawn(["bash", "-c", code, path]);
  await other.stdout.waitForLine(/locked/);
  const refused = new KeptState(fd).claim(0).then(
    () => "claimed",
    (error: unknown) => (error instanceof PostcopyError ? error.code : String(error)),
  );
  expect(await refused).toBe("STILL_FILLED");
  const claimed = new KeptState(fd).claim();
  other.kill();
  await claimed;
});

test("what is no state, another version's, or cut off is refused", () => {
  using descriptors = new Descriptors();
  expect(refusal(() => new KeptState(descriptors.event()))).toContain("it is no such file");
  const damage = (at: number, byte: number, act: (state: KeptState) => unknown): string => {
    const { fd } = KeptState.begin(1, REGIONS);
    descriptors.add(fd);
    new KeptState(fd).prepare(BLOCKS);
    writeSync(fd, Uint8Array.of(byte), 0, 1, at);
    return refusal(() => act(new KeptState(fd)));
  };
  const open = (): void => undefined;
  const reopen = (state: KeptState): unknown => state.reopen();
  expect(damage(0, 0x51, open)).toContain("it does not begin as one");
  expect(damage(16, 9, open)).toContain("version 9, and this program writes 3");
  expect(damage(35, 1, open)).toContain("cut off");
  expect(damage(2 * PAGE, 0x7a, open)).toContain("not JSON");
  expect(damage(3 * PAGE, 0x7a, reopen)).toContain("not JSON");
  expect(damage(39, 1, reopen)).toContain("cut off");
  // The address of the first piece of memory, which becomes no whole number.
  expect(damage(4 * PAGE + 7 + 8 + halfBytes(), 0x7f, reopen)).toContain("a piece of memory");
});

test("whatever bytes are in it, it is opened or refused by name", () => {
  using descriptors = new Descriptors();
  const { fd } = KeptState.begin(123, REGIONS);
  descriptors.add(fd);
  new KeptState(fd).prepare(BLOCKS);
  const whole = new Uint8Array(sealedLength(fd) ?? 0);
  readSync(fd, whole, 0, whole.length, 0);
  // Headers, texts, and the head of the map; bits mean what they say.
  const place = fc.constantFrom(0, PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE).chain((page) => {
    return fc.integer({ min: page, max: page + 200 });
  });
  const damage = fc.array(fc.tuple(place, fc.integer({ min: 0, max: 255 })), { maxLength: 4 });
  fc.assert(
    fc.property(damage, (bytes) => {
      writeSync(fd, whole, 0, whole.length, 0);
      for (const [at, byte] of bytes) writeSync(fd, Uint8Array.of(byte), 0, 1, at);
      try {
        new AddressMap(new KeptState(fd).reopen().map).pieces();
      } catch (error) {
        if (!(error instanceof PostcopyError)) throw error;
      }
    }),
    { numRuns: 300 },
  );
});

/** The list of pieces is written into its second half first. */
function halfBytes(): number {
  const shared = AddressMap.bytes(REGIONS.length + BLOCKS.length);
  return Math.floor((shared / 8 - 1) / 2) * 8;
}

const userfaultTest = requireOrSkip(needUserfaultfd());

userfaultTest("events that were read and not acted on are, and each of them once", () => {
  using descriptors = new Descriptors();
  using memory = mapAnonymous(90 * PAGE);
  const { userfault } = openUserfault();
  descriptors.add(userfault.fd);
  userfault.enable(UFFD.UFFD_FEATURE_EVENT_REMOVE);
  userfault.register(memory.address, memory.length, UFFD.UFFDIO_REGISTER_MODE_MISSING);
  const regions = REGIONS.map((region) => ({ ...region, address: memory.address }));
  const state = KeptState.begin(1, regions);
  descriptors.add(state.fd);
  state.prepare(BLOCKS);
  const kept = new KeptState(state.fd).reopen();
  const { view } = scratchAt(kept.eventsAt, EVENT_BUFFER_BYTES);
  const put = (slot: number, kind: number, ...numbers: number[]): void => {
    view.setUint8(slot * 32, kind);
    numbers.forEach((number, index) => putU64(view, slot * 32 + 8 + index * 8, number));
  };
  const at = (page: number): number => memory.address + page * PAGE;
  const elsewhere = 2 ** 41;
  put(0, UFFD.UFFD_EVENT_PAGEFAULT, 0, at(1));
  put(1, UFFD.UFFD_EVENT_REMOVE, at(2), at(4));
  // Between them one that was acted on.
  put(3, UFFD.UFFD_EVENT_REMAP, at(80), elsewhere, 10 * PAGE);
  const map = new AddressMap(kept.map);
  const { received, removed } = kept;
  const pages = attachPageState(createPageState(BLOCKS, { received, removed }), BLOCKS);
  const shared = new DestShared(createDestShared());
  Atomics.store(shared.control, WORD.userfaultFd, userfault.fd);
  const take = (): void => {
    takeLeftEvents({ shared, blocks: BLOCKS, pages, map }, kept.eventsAt);
  };
  take();
  expect(pages.removed[0]?.count()).toBe(10 + 2);
  expect(pages.removed[0]?.test(12)).toBe(true);
  expect(map.addressOf(0, 90 * PAGE)).toBe(elsewhere);
  // The buffer is empty; and a move that was acted on is not acted on again.
  const left = new Uint8Array(viewMemory(kept.eventsAt, EVENT_BUFFER_BYTES));
  expect([0, 1, 2, 3].map((slot) => left[slot * 32])).toEqual([0, 0, 0, 0]);
  put(0, UFFD.UFFD_EVENT_REMAP, at(80), elsewhere, 10 * PAGE);
  take();
  expect(pages.removed[0]?.count()).toBe(12);
});
