/** Streams of which no snapshot can be made: each is refused by the name of what is in the way. */
import { existsSync, mkdirSync } from "node:fs";
import { expect } from "bun:test";

import { STREAM_MAGIC, STREAM_VERSION } from "../../src/stream/constants.ts";
import { writeStreamOpening } from "../../src/stream/header.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  bytesOf,
  description,
  eof,
  opening,
  openReturnPath,
  ramEnd,
  ramStart,
  unknownDevice,
  zeroPages,
} from "../helpers/hand-made-stream.ts";
import type { Piece } from "../helpers/hand-made-stream.ts";
import { startDest } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { START, expectRefused } from "../helpers/refused-stream.ts";
import type { Refusal } from "../helpers/refused-stream.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const keptTest = requireOrSkip(needUserfaultfd());

function refused(name: string, refusal: Refusal): void {
  keptTest(name, async () => {
    await using directory = new TemporaryDirectory("kept");
    await expectRefused(`snapshot:${directory.file("guest")}`, refusal);
  });
}

/** A machine type, and a subsection that nobody knows. */
const unknownSubsection: Piece = (writer) => {
  writer.u32(STREAM_MAGIC).u32(STREAM_VERSION);
  writer.u8(7).u32(2).text("pc").u8(5).str8("configuration/moon").u32(1);
};

refused("a configuration with a subsection that is not known", {
  stream: [unknownSubsection],
  code: "BAD_CONFIGURATION",
  says: 'The configuration has an unknown subsection "configuration/moon"',
});
refused("a capability that is not understood", {
  stream: [
    (writer) => writeStreamOpening(writer, { machine: "pc", capabilities: ["mapped-ram"] }),
    ramStart(),
  ],
  code: "UNSUPPORTED_CAPABILITY",
  says: "The source migrates with the capability mapped-ram, which a snapshot cannot keep",
});
refused("a device that is sent in rounds, as memory is", {
  stream: [...[...START, ramStart()], (writer) => writer.u8(1).u32(9).str8("vfio").u32(0).u32(1)],
  code: "UNKNOWN_SECTION",
  says: 'The main stream has a section of "vfio" (instance 0)',
});
refused("a device whose state comes ahead of memory", {
  stream: [...START, unknownDevice(1, "virtio-mem-device-early")],
  code: "UNSUPPORTED_DEVICE",
  says: 'The state of "virtio-mem-device-early" comes before the end of memory',
});

keptTest(
  "device state that breaks off: the source that opened no way back is to go on",
  async () => {
    await using directory = new TemporaryDirectory("kept");
    const path = directory.file("guest");
    await using dest = await startDest({ guest: `snapshot:${path}` });
    await using peer = await HandMadePeer.connect(dest.peer);
    const whole = bytesOf(
      unknownDevice(1, "cpu"),
      unknownDevice(2, "pci"),
      eof,
      description("cpu"),
    );
    peer.send(opening("pc"), ramStart(), ramEnd(zeroPages()), whole.subarray(0, -1));
    peer.endWriting();
    const { exitCode, error, stderr } = await dest.end();
    expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "TRUNCATED" });
    expect(stderr).toContain("cont lets the guest go on");
    expect(existsSync(`${path}/manifest.json`)).toBe(false);
  },
);

keptTest(
  "a snapshot that cannot be named: the link is cut, and the source has the guest",
  async () => {
    await using directory = new TemporaryDirectory("kept");
    const path = directory.file("guest");
    await using dest = await startDest({ guest: `snapshot:${path}` });
    await using peer = await HandMadePeer.connect(dest.peer);
    peer.send(opening("pc"), openReturnPath, ramStart());
    await dest.event("guest");
    mkdirSync(`${path}/manifest.json`);
    peer.send(ramEnd(zeroPages()), unknownDevice(1, "cpu"), eof, description("cpu"));
    const { exitCode, error, events } = await dest.end();
    expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "CANNOT_STORE" });
    const warnings = events.filter(({ event }) => event === "warning");
    expect(warnings).toMatchObject([{ code: "GUEST_STANDS" }]);
    await peer.otherEnd();
    expect(peer.messages).toEqual([]);
  },
);
