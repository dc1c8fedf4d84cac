/**
 * Inputs at which the program once did something wrong, made by hand and small: each is given to
 * the target that found it, and comes to what it should.
 */
import { RAM_SECTION } from "../../src/stream/constants.ts";
import {
  writeReceivedBitmapEnd,
  writeReceivedBitmapStart,
} from "../../src/stream/received-bitmap.ts";
import { writeFooter, writeStartSection } from "../../src/stream/section.ts";
import {
  advise,
  bytesOf,
  command,
  description,
  discard,
  eof,
  HAND_MADE_BLOCK,
  HAND_MADE_PAGES,
  opening,
  openReturnPath,
  page,
  ramEnd,
  ramPart,
  ramStart,
  unknownDevice,
  zeroPages,
} from "../helpers/hand-made-stream.ts";
import type { Piece } from "../helpers/hand-made-stream.ts";
import { channelHead } from "../../src/stream/further-channel.ts";

/** One input, and what must come of it. */
export interface CorpusEntry {
  name: string;
  /** What went wrong with it. */
  was: string;
  /** Names of the targets that take it. */
  targets: readonly string[];
  bytes: Uint8Array;
  /** "accepted", or the code of the refusal. */
  is: string;
}

const DEST = ["dest, kept in files", "dest, in memory"] as const;
const FILES = ["analyze", "saved stream served"] as const;
const PAGE = 4096;
const TOKEN = 0xdead_beef;
const EOS = 0x10;
const MEM_SIZE = 0x04;
const FLUSH = 0x200;

const HEAD: readonly Piece[] = [opening(), openReturnPath];
const DEVICES: readonly Piece[] = [unknownDevice(3, "cpu", 1, 2, 3), eof];
const DESCRIBED: readonly Piece[] = [...DEVICES, description("cpu")];
const MEMORY: readonly Piece[] = [ramStart(), ramEnd(zeroPages())];

/** RAM's section begins, without a list of blocks. */
const bareStart: Piece = (writer) => {
  writeStartSection(writer, { sectionId: 9, ...RAM_SECTION });
  writer.u64(EOS);
  writeFooter(writer, 9);
};

/** A description of one device, with subsections within each other. */
function nested(levels: number): Piece {
  return (writer) => {
    const inner = '{"vmsd_name":"x","subsections":['.repeat(levels) + "]}".repeat(levels);
    const json = `{"devices":[{"name":"cpu","instance_id":0,"subsections":[${inner}]}]}`;
    writer.u8(6).u32(json.length).text(json);
  };
}

function tooLarge(length: number): Piece {
  return ramStart([{ name: HAND_MADE_BLOCK, length, pageSize: PAGE }]);
}

/** A received bitmap of all pages, twice of the same block. */
const bitmapTwice: Piece = (writer) => {
  for (let times = 0; times < 2; times++) {
    writeReceivedBitmapStart(writer, HAND_MADE_BLOCK, HAND_MADE_PAGES);
    writer.raw(new Uint8Array(8).fill(0xff));
    writeReceivedBitmapEnd(writer);
  }
};

export const CORPUS: readonly CorpusEntry[] = [
  {
    name: "memory that begins twice",
    was: "the number of its section changed under the thread that reads it after the switch",
    ...{ targets: DEST, bytes: bytesOf(...HEAD, ramStart(), bareStart), is: "UNEXPECTED" },
  },
  {
    name: "pages behind the end of memory",
    was: "taken, though every other reading of such a stream ends there",
    ...{ targets: DEST, is: "UNEXPECTED" },
    bytes: bytesOf(...HEAD, ...MEMORY, ramPart(page(0, 7)), ...DESCRIBED),
  },
  {
    name: "a command behind the end of memory",
    was: "taken, though every other reading finds the state of a device there",
    ...{ targets: DEST, is: "UNEXPECTED" },
    bytes: bytesOf(...HEAD, ...MEMORY, command({ kind: "switchoverStart" }), ...DESCRIBED),
  },
  {
    name: "a guest of 64 TiB",
    was: "RangeError: Out of memory, an internal error",
    ...{ targets: [...DEST, "saved stream served"], is: "NO_MEMORY" },
    bytes: bytesOf(...HEAD, tooLarge(2 ** 46), ramEnd(), ...DESCRIBED),
  },
  {
    name: "all of memory discarded over and over",
    was: "as much work as the guest has pages, for sixteen bytes each",
    ...{ targets: [...DEST, ...FILES], is: "UNEXPECTED" },
    bytes: bytesOf(...HEAD, advise(), ramStart(), ...Array.from({ length: 5 }, () => discard())),
  },
  {
    name: "a description that nests without end",
    was: "RangeError: Maximum call stack size exceeded, an internal error",
    ...{ targets: ["dest, kept in files", ...FILES], is: "accepted" },
    bytes: bytesOf(...HEAD, ...MEMORY, ...DEVICES, nested(20_000)),
  },
  {
    name: "devices ahead of memory without end",
    was: "kept in a list, each of them",
    ...{ targets: ["analyze"], is: "BAD_LENGTH" },
    bytes: bytesOf(
      opening(),
      ...Array.from({ length: 1025 }, (_, id) => unknownDevice(id, "virtio-mem", 0)),
      ramStart(),
    ),
  },
  {
    name: "a list of blocks on the urgent channel",
    was: "its list was read as records of pages",
    ...{ targets: ["urgent channel"], is: "UNEXPECTED" },
    bytes: bytesOf((writer) => writer.raw(channelHead("urgent", TOKEN)).u64(MEM_SIZE + PAGE)),
  },
  {
    name: "flushes on the urgent channel",
    was: "left in the receive buffer until it was full, an internal error",
    ...{ targets: ["urgent channel"], is: "UNEXPECTED" },
    bytes: bytesOf((writer) => {
      writer.raw(channelHead("urgent", TOKEN));
      for (let flush = 0; flush < 100_000; flush++) writer.u64(FLUSH);
    }),
  },
  {
    name: "a received bitmap that comes twice",
    was: "taken for that of another block, which then was never sent",
    ...{ targets: ["return path"], bytes: bytesOf(bitmapTwice), is: "UNEXPECTED" },
  },
];
