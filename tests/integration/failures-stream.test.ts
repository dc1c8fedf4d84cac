/**
 * Streams that no source would send, byte by byte from the codecs: commands in the wrong state,
 * sections that are not known, and ends that come too early. Each is refused, and nothing hangs.
 */
import { describe, expect } from "bun:test";

import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  BEFORE_PACKAGE,
  WHOLE,
  advise,
  bytesOf,
  command,
  device,
  discard,
  eof,
  listen,
  opening,
  packaged,
  page,
  ping,
  ramEnd,
  ramPart,
  ramStart,
  run,
  zeroPages,
} from "../helpers/hand-made-stream.ts";
import { startDest } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { answersOf, PRECOPY, START, expectRefused } from "../helpers/refused-stream.ts";
import type { Refusal } from "../helpers/refused-stream.ts";

const streamTest = requireOrSkip(needUserfaultfd());

function refused(name: string, refusal: Refusal): void {
  streamTest(name, async () => expectRefused("stress", refusal));
}

describe("commands in the wrong state", () => {
  refused("ADVISE twice", {
    stream: [...START, advise(), advise()],
    code: "WRONG_STATE",
    says: "POSTCOPY_ADVISE came in state ADVISE; it may come in NONE",
  });
  refused("DISCARD before ADVISE", {
    stream: [...START, ramStart(), discard()],
    code: "WRONG_STATE",
    says: "POSTCOPY_RAM_DISCARD came in state NONE; it may come in ADVISE or DISCARD",
  });
  refused("PACKAGED before ADVISE", {
    stream: [...START, ramStart(), packaged()],
    code: "WRONG_STATE",
    says: "PACKAGED came in state NONE",
  });
  refused("RUN before LISTEN", {
    stream: [...BEFORE_PACKAGE, packaged(run)],
    code: "BAD_PACKAGE",
    says: "The package of device state does not begin with POSTCOPY_LISTEN",
  });
  refused("LISTEN twice", {
    stream: [...BEFORE_PACKAGE, packaged(listen, listen)],
    code: "WRONG_STATE",
    says: "POSTCOPY_LISTEN came in state LISTENING; it may come in ADVISE or DISCARD",
  });
  refused("LISTEN outside of the package", {
    stream: [...BEFORE_PACKAGE, listen],
    code: "WRONG_STATE",
    says: "POSTCOPY_LISTEN came outside of the package",
  });
  refused("RUN outside of the package", {
    stream: [...BEFORE_PACKAGE, run],
    code: "WRONG_STATE",
    says: "POSTCOPY_RUN came outside of the package",
  });
  refused("LISTEN before the list of RAM blocks", {
    stream: [...START, advise(), packaged()],
    code: "WRONG_STATE",
    says: "POSTCOPY_LISTEN came before the list of RAM blocks",
  });
  refused("DISCARD after LISTEN", {
    stream: [...BEFORE_PACKAGE, packaged(), discard()],
    code: "WRONG_STATE",
    says: "POSTCOPY_RAM_DISCARD came while pages were being received",
  });
  refused("a package in a package", {
    stream: [...BEFORE_PACKAGE, packaged(listen, packaged())],
    code: "WRONG_STATE",
    says: "PACKAGED came where it is not understood",
  });
  refused("PING before the return path is open", {
    stream: [opening(), ping(1)],
    code: "WRONG_STATE",
    says: "PING came before the return path was opened",
  });
  refused("a command of recovery without anything to recover", {
    stream: [...START, command({ kind: "postcopyResume" })],
    code: "WRONG_STATE",
    says: "POSTCOPY_RESUME came where it is not understood",
  });
  refused("a command that does not exist", {
    stream: [...START, (writer) => writer.u8(8).u16(99).u16(0)],
    code: "UNKNOWN_COMMAND",
    says: "The stream has an unknown command, number 99",
  });
});

describe("sections that are not known", () => {
  refused("a section of something other than RAM", {
    stream: [...START, advise(), (writer) => writer.u8(1).u32(5).str8("htab").u32(0).u32(1)],
    code: "UNKNOWN_SECTION",
    says: 'The main stream has a section of "htab" (instance 0), and only "ram" is known',
  });
  refused("a part of a section that was never started", {
    stream: [...PRECOPY, (writer) => writer.u8(2).u32(99)],
    code: "UNKNOWN_SECTION",
    says: "Section 99 was never started",
  });
  refused("the same in postcopy", {
    stream: [...BEFORE_PACKAGE, packaged(), (writer) => writer.u8(2).u32(99)],
    code: "UNKNOWN_SECTION",
    says: "Section 99 is not RAM's",
  });
  refused("a byte that begins no section", {
    stream: [...PRECOPY, (writer) => writer.u8(0x42)],
    code: "UNKNOWN_SECTION",
    says: "No section begins with the byte 0x42",
  });
  refused("a section with the footer of another", {
    stream: [
      ...PRECOPY,
      (writer) => {
        const part = bytesOf(ramPart(page(0, 1)));
        writer.raw(part.subarray(0, part.length - 1)).u8(8);
      },
    ],
    code: "BAD_FOOTER",
    says: "Section 7 ends with the footer of section 8",
  });
  refused("a device that a stress guest does not have", {
    stream: [
      ...BEFORE_PACKAGE,
      packaged(listen, (writer) => writer.u8(4).u32(9).str8("e1000").u32(0).u32(1)),
    ],
    code: "UNSUPPORTED_DEVICE",
    says: 'The stream has a device "e1000" of version 1, which a stress guest does not have',
  });
  refused("a device twice", {
    stream: [...BEFORE_PACKAGE, packaged(listen, device, device, run), ramPart(zeroPages())],
    code: "UNEXPECTED",
    says: "The state of the stress guest's device came twice",
  });
  refused("a package that does not let the guest run", {
    stream: [...BEFORE_PACKAGE, packaged(listen, device), ramPart(zeroPages())],
    code: "BAD_PACKAGE",
    says: "The package of device state does not end with RUN",
  });
  refused("a section of memory in the package", {
    stream: [...BEFORE_PACKAGE, packaged(listen, ramPart(zeroPages()), device, run)],
    code: "BAD_PACKAGE",
    says: "The package of device state has a section of memory (part)",
  });
  refused("a package beyond all measure", {
    stream: [...BEFORE_PACKAGE, (writer) => writer.u8(8).u16(7).u16(4).u32(0xffff_fff0)],
    code: "BAD_LENGTH",
    says: "The package of device state has 4294967280 bytes, above the limit of",
  });
});

describe("streams that end too early", () => {
  refused("before the guest's memory", {
    stream: [...BEFORE_PACKAGE, eof],
    code: "TRUNCATED",
    says: "The stream ended before the guest's memory did",
  });
  refused("by itself, after pages were discarded", {
    stream: [...PRECOPY, discard(), ramPart(zeroPages()), ramEnd(), eof],
    code: "WRONG_STATE",
    says: "The stream ended in state DISCARD",
  });
  refused("before the last page, which the device state waits for", {
    stream: [...BEFORE_PACKAGE, packaged(), ramPart(zeroPages(0, 15)), ramEnd(), eof],
    code: "PAGES_MISSING",
    says: "The stream ended and 1 pages never came",
  });

  /** Bytes of a whole stream at which it is cut: in the middle of what, and where. */
  const lengths = WHOLE.map((piece) => bytesOf(piece).length);
  const startOf = (index: number): number =>
    lengths.slice(0, index).reduce((sum, length) => sum + length, 0);
  const cuts: Readonly<Record<string, number>> = {
    "in the machine type": 15,
    "in ADVISE": startOf(3) + 9,
    "in the list of blocks": startOf(4) + 30,
    "in a discard": startOf(5) + 20,
    "in the device state": startOf(6) + 100,
    "in a page": startOf(7) + 40,
  };
  for (const [where, cut] of Object.entries(cuts)) {
    streamTest(where, async () => {
      await using dest = await startDest();
      await using peer = await HandMadePeer.connect(dest.peer);
      peer.send(bytesOf(...WHOLE).subarray(0, cut));
      peer.endWriting();
      const { exitCode, error } = await dest.end();
      expect({ exitCode, error }).toMatchObject({ exitCode: 1, error: { code: "PEER_CLOSED" } });
      await peer.otherEnd();
      const last = answersOf(peer).at(-1);
      if (cut > startOf(2)) expect(last).toEqual({ kind: "shut", status: 1 });
    });
  }

  streamTest("and the whole of it is a guest", async () => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    peer.send(bytesOf(...WHOLE));
    const { exitCode, report } = await dest.end();
    await peer.otherEnd();
    expect(exitCode).toBe(0);
    expect(report.audit).toEqual({ pagesChecked: 16, pagesWrong: 0 });
    const answers = peer.messages.filter(({ kind }) => kind !== "pageRequest");
    expect(answers).toEqual([
      { kind: "pong", value: 1 },
      { kind: "pong", value: 3 },
      { kind: "shut", status: 0 },
    ]);
  });
});
