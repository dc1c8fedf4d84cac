/**
 * Streams that no source would send, byte by byte from the codecs: memory that is not there, pages
 * that nobody owes, and guests that are not the one that was meant.
 */
import { describe, expect } from "bun:test";

import { RAM_FLAG } from "../../src/stream/constants.ts";
import { FEATURE, FEATURES_OURS, chosenValue, tokenValues } from "../../src/stream/hello.ts";
import { channelHead } from "../../src/stream/further-channel.ts";
import { encodeRamSetup } from "../../src/stream/ram-setup.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  BEFORE_PACKAGE,
  HAND_MADE_BLOCK,
  advise,
  bytesOf,
  discard,
  eof,
  opening,
  packaged,
  page,
  ping,
  ramEnd,
  ramPart,
  ramStart,
  zeroPages,
} from "../helpers/hand-made-stream.ts";
import type { Piece } from "../helpers/hand-made-stream.ts";
import { startDest } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { PRECOPY, START, expectRefused } from "../helpers/refused-stream.ts";
import type { Refusal } from "../helpers/refused-stream.ts";

const streamTest = requireOrSkip(needUserfaultfd());

function refused(name: string, refusal: Refusal): void {
  streamTest(name, async () => expectRefused("stress", refusal));
}

/** Bytes of a guest that nobody has the memory for. */
const TERABYTE = 2 ** 40;

/** RAM's START with a list in which a second START of the same list follows. */
const listTwice: Piece = (writer) => {
  const first = bytesOf(ramStart());
  // Without EOS and footer, so that the next record stands in the same section.
  writer.raw(first.subarray(0, first.length - 13));
  encodeRamSetup(writer, [{ name: "other", length: 4096, pageSize: 4096 }]);
};

describe("memory that is not there", () => {
  refused("a page behind the end of its block", {
    stream: [...PRECOPY, ramPart(page(16 * 4096, 1))],
    code: "BAD_OFFSET",
    says: `The source sends the page at 65536 of ${HAND_MADE_BLOCK}, which has 65536 bytes`,
  });
  refused("the same in postcopy", {
    stream: [...BEFORE_PACKAGE, packaged(), ramPart(page(16 * 4096, 1))],
    code: "BAD_OFFSET",
    says: `The source sends the page at 65536 of ${HAND_MADE_BLOCK}, which has 65536 bytes`,
  });
  refused("a page of an unknown block", {
    stream: [...PRECOPY, ramPart(page(0, 1, "pc.ram"))],
    code: "UNKNOWN_BLOCK",
    says: 'The source sends pages of an unknown block "pc.ram"',
  });
  refused("the same in postcopy", {
    stream: [...BEFORE_PACKAGE, packaged(), ramPart(page(0, 1, "pc.ram"))],
    code: "UNKNOWN_BLOCK",
    says: 'The source sends pages of an unknown block "pc.ram"',
  });
  refused("pages before the list of blocks", {
    stream: [
      ...START,
      (writer) => {
        const start = bytesOf(ramStart());
        writer.raw(start.subarray(0, 17));
        page(0, 1)(writer);
      },
    ],
    code: "UNKNOWN_BLOCK",
    says: `The source sends pages of an unknown block "${HAND_MADE_BLOCK}"`,
  });
  refused("a discard of an unknown block", {
    stream: [...PRECOPY, discard("pc.ram")],
    code: "UNKNOWN_BLOCK",
    says: 'The source discards an unknown block "pc.ram"',
  });
  refused("a discard behind the end", {
    stream: [...PRECOPY, discard(HAND_MADE_BLOCK, { start: 61_440, length: 8192 })],
    code: "BAD_RANGE",
    says: `The source discards 8192 bytes at 61440 of ${HAND_MADE_BLOCK}`,
  });
  refused("a discard that cuts a page", {
    stream: [...PRECOPY, discard(HAND_MADE_BLOCK, { start: 100, length: 4096 })],
    code: "BAD_RANGE",
    says: `The source discards 4096 bytes at 100 of ${HAND_MADE_BLOCK}`,
  });
  refused("the list of blocks twice", {
    stream: [...START, advise(), listTwice],
    code: "UNEXPECTED",
    says: "The list of RAM blocks came twice",
  });
  refused("target pages of another size", {
    stream: [...START, advise(16_384, 16_384)],
    code: "PAGE_SIZE",
    says: "The source's target pages have 16384 bytes, here they have 4096",
  });
  refused("another summary of page sizes", {
    stream: [...START, advise(4096 | (2 * 2 ** 20)), ramStart()],
    code: "PAGE_SIZE",
    says: "The source's RAM has page sizes 0x201000, here they are 0x1000",
  });
  refused("a zero page that is not filled with zeros", {
    stream: [...PRECOPY, ramPart((writer) => writer.u64(2).str8(HAND_MADE_BLOCK).u8(7))],
    code: "BAD_VALUE",
    says: `The source fills the page at 0 of ${HAND_MADE_BLOCK} with 7, not zero`,
  });
});

describe("pages that no source owes", () => {
  const unsent = { start: 14 * 4096, length: 2 * 4096 };
  const discarded = { start: 0, length: unsent.start };

  streamTest("never sent and never discarded, are zeros and asked for by nobody", async () => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    const pushed = ramPart(zeroPages(0, 14));
    const before = [...PRECOPY, discard(HAND_MADE_BLOCK, discarded)];
    peer.send(bytesOf(...before, packaged(), pushed, ramEnd(), eof));
    const { exitCode, report, stderr } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report.audit).toEqual({ pagesChecked: 16, pagesWrong: 0 });
    expect(report.pages.missing).toBe(14);
    await peer.otherEnd();
    const asked = peer.messages.filter((message) => {
      return message.kind === "pageRequest" && message.start >= unsent.start;
    });
    expect(asked).toEqual([]);
    expect(peer.messages.at(-1)).toEqual({ kind: "shut", status: 0 });
  });
});

describe("pages that come twice in postcopy", () => {
  /** Another page 5 than the one that came first: the guest's has nothing but zeros. */
  const forged = page(5 * 4096, 0x77);
  const TOKEN = 0x1234_5678;
  const PLACED = 0x77;

  streamTest("on one channel: the first one counts, which the guest may have read", async () => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    const twice = ramPart(zeroPages(0, 15), forged, zeroPages(15, 16));
    peer.send(...BEFORE_PACKAGE, packaged(), twice, ramEnd(), eof);
    const { exitCode, report, stderr } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report.audit).toEqual({ pagesChecked: 16, pagesWrong: 0 });
    expect(report.places.exists).toBe(1);
  });

  streamTest("on two channels, the same", async () => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    const chosen = [...tokenValues(TOKEN), chosenValue(FEATURES_OURS & ~FEATURE.identity)].map(
      ping,
    );
    peer.send(...BEFORE_PACKAGE, ...chosen, packaged(), ramPart(zeroPages(0, 14)), ping(PLACED));
    // The answer is behind the pages before it: the first page 5 is there, and the guest waits for another.
    await peer.message((message) => message.kind === "pong" && message.value === PLACED);
    await peer.message(({ kind }) => kind === "pageRequest");
    await using urgent = await HandMadePeer.connect(dest.peer);
    // What is on it has been taken when the other end closes it, as it does behind EOS.
    urgent.send(channelHead("urgent", TOKEN), forged, page(14 * 4096), (writer) => {
      writer.u64(RAM_FLAG.endOfSection);
    });
    await urgent.otherEnd();
    peer.send(ramPart(page(14 * 4096, 0x77), zeroPages(15, 16)), ramEnd(), eof);
    const { exitCode, report, stderr } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    expect(report.audit).toEqual({ pagesChecked: 16, pagesWrong: 0 });
    expect([report.places.exists, report.pages.urgentZero]).toEqual([2, 1]);
  });
});

describe("guests that are not the one that was meant", () => {
  refused("another machine type", {
    // It is known before the way back is open: the source only sees that the link is cut.
    stream: [opening("pc-i440fx-7.2"), ping(1)],
    code: "WRONG_GUEST",
    says: 'The source sends a guest of machine type "pc-i440fx-7.2"; a stress guest is expected',
  });
  streamTest("another size of RAM than the operator said", async () => {
    await expectRefused("stress:size=16MiB", {
      stream: PRECOPY,
      code: "RAM_SIZE",
      says: "The guest that arrives has 65536 bytes of RAM, 16777216 were expected",
    });
  });
  streamTest("more RAM than this host has", async () => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    const blocks = [{ name: "stress.ram", length: TERABYTE, pageSize: 4096 }];
    peer.send(bytesOf(...START, advise(), ramStart(blocks)));
    const { exitCode, error } = await dest.end();
    expect({ exitCode, error }).toMatchObject({ exitCode: 3, error: { code: "NO_MEMORY" } });
    expect(error?.message).toStartWith("The guest needs 1 TiB of memory and the host has ");
    await peer.otherEnd();
    expect(peer.messages).toEqual([{ kind: "shut", status: 1 }]);
  });
});
