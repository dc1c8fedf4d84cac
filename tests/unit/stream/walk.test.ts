/** A whole stream told section by section: what stands where, and what is refused at which byte. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { FileReader } from "../../../src/channel/file-reader.ts";
import { RAM_FLAG, RAM_SECTION } from "../../../src/stream/constants.ts";
import { writeStreamOpening } from "../../../src/stream/header.ts";
import { mappedRamLayout, writeMappedRamHeader } from "../../../src/stream/mapped-ram.ts";
import { encodeRamSetup } from "../../../src/stream/ram-setup.ts";
import { StreamReader } from "../../../src/stream/reader.ts";
import {
  writeFooter,
  writeFullSection,
  writeStartSection,
  writeVmDescription,
} from "../../../src/stream/section.ts";
import { walkStream } from "../../../src/stream/walk.ts";
import type { StreamVisitor, WalkEnd } from "../../../src/stream/walk.ts";
import { StreamError } from "../../../src/util/errors.ts";
import {
  BEFORE_PACKAGE,
  bytesOf,
  device,
  eof,
  HAND_MADE_BLOCK,
  opening,
  page,
  packaged,
  ramEnd,
  ramPart,
  ramStart,
  WHOLE,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const description: Piece = (writer) => writeVmDescription(writer, '{"devices": []}');
const PRECOPY: readonly Piece[] = [
  opening(),
  ramStart(),
  ramPart(page(0, 1), page(PAGE, 2)),
  ramPart(page(0, 3)),
  ramEnd(zeroPages(2)),
  device,
  eof,
  description,
];

/** Everything that a walk of `bytes` tells, one line each. */
function walked(bytes: Uint8Array): { lines: string[]; end: WalkEnd } {
  const lines: string[] = [];
  const visitor: StreamVisitor = {
    opening: (configuration, endAt) => lines.push(`opening ${configuration?.machine} ${endAt}`),
    command: (command, at) => lines.push(`command ${command.kind} ${at}`),
    package: (inner, at) => lines.push(`package ${inner.length} ${at}`),
    ramStart: (blocks) => lines.push(`blocks ${blocks.map(({ name }) => name).join()}`),
    page: ({ kind, block, offset, dataAt, dataLength, ...rest }) => {
      if (kind === "zero") return;
      expect(rest.bytes[rest.bytesAt]).toBe(bytes[dataAt] ?? -1);
      const phase = rest.postcopy ? "postcopy" : "precopy";
      const place = `${block}:${offset / PAGE}`;
      lines.push(`${kind} ${place} ${bytes[dataAt]}*${dataLength} ${phase} ${rest.section}`);
    },
    flush: (at) => lines.push(`flush ${at}`),
    section: ({ kind, at, endAt }) => lines.push(`${kind} ${at} ${endAt}`),
    devices: (inner, at) => lines.push(`devices ${inner.length} ${at}`),
    eof: (at) => lines.push(`eof ${at}`),
    vmDescription: (json, at) => lines.push(`description ${json} ${at}`),
  };
  const end = walkStream(new StreamReader(bytes, bytes.length), visitor);
  return { lines, end };
}

/** The offset of each piece, and of the end. */
function offsets(pieces: readonly Piece[]): number[] {
  const sizes = pieces.map((piece) => bytesOf(piece).length);
  return [0, ...sizes.map((_, i) => sizes.slice(0, i + 1).reduce((sum, size) => sum + size, 0))];
}

function refusal(bytes: Uint8Array): StreamError {
  try {
    walked(bytes);
  } catch (error) {
    if (error instanceof StreamError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("a walk", () => {
  test("tells a stream that completed in precopy", () => {
    const at = offsets(PRECOPY);
    const { lines, end } = walked(bytesOf(...PRECOPY));
    expect(end).toEqual({ kind: "precopy", end: at[8] ?? 0 });
    const deviceBytes = bytesOf(device).length;
    expect(lines).toEqual([
      `opening postcopy-stress-1 ${at[1]}`,
      `blocks ${HAND_MADE_BLOCK}`,
      `start ${at[1]} ${at[2]}`,
      "normal 0:0 1*4096 precopy 1",
      "normal 0:1 2*4096 precopy 1",
      `part ${at[2]} ${at[3]}`,
      "normal 0:0 3*4096 precopy 2",
      `part ${at[3]} ${at[4]}`,
      `end ${at[4]} ${at[5]}`,
      `devices ${deviceBytes} ${at[5]}`,
      `eof ${at[6]}`,
      `description {"devices": []} ${at[7]}`,
    ]);
  });

  test("tells a stream that was switched over", () => {
    const pieces = [
      ...BEFORE_PACKAGE,
      packaged(),
      ramPart(page(0, 9), zeroPages(1)),
      ramEnd(),
      eof,
    ];
    const at = offsets(pieces);
    const { lines, end } = walked(bytesOf(...pieces));
    expect(end).toEqual({ kind: "postcopy", end: at.at(-1) ?? 0 });
    const kinds = lines.map((line) => line.replace(/ \d+$/, ""));
    expect(kinds).toContain("command postcopyAdvise");
    expect(kinds).toContain("command postcopyRamDiscard");
    expect(lines).toContain(`command packaged ${at[6]}`);
    expect(lines).toContain(`package ${(at[7] ?? 0) - (at[6] ?? 0) - 9} ${(at[6] ?? 0) + 9}`);
    expect(lines).toContain("normal 0:0 9*4096 postcopy 1");
    expect(lines.at(-1)).toBe(`eof ${at[9]}`);
  });

  test("does without a description where the machine suppresses it", () => {
    const { lines } = walked(bytesOf(...PRECOPY.slice(0, -1)));
    expect(lines.at(-1)).toBe(`eof ${offsets(PRECOPY)[6]}`);
  });

  test("refuses every place at which a stream is cut off, with the place", () => {
    for (const pieces of [PRECOPY, WHOLE]) {
      const whole = bytesOf(...pieces);
      const ends = pieces === PRECOPY ? [offsets(PRECOPY)[7], whole.length] : [whole.length];
      for (let length = 0; length < whole.length; length += length > 5000 ? 97 : 1) {
        if (ends.includes(length)) continue;
        const { code, message } = refusal(whole.subarray(0, length));
        expect({ code, length }).toEqual({ code: "TRUNCATED", length });
        expect(message).toContain(`at byte ${length} of`);
      }
    }
  });

  test("refuses what it cannot tell the end of, by name", () => {
    const early: Piece = (writer) => {
      const section = { sectionId: 9, idstr: "virtio-mem", instanceId: 0, versionId: 1 };
      writeFullSection(writer, section);
    };
    const { code, message } = refusal(bytesOf(opening(), early, ...PRECOPY.slice(1)));
    expect(code).toBe("UNKNOWN_SECTION");
    expect(message).toContain('"virtio-mem"');
    expect(message).toContain(`at byte ${bytesOf(opening()).length} `);
  });

  test("refuses pages outside of their block, and of unknown blocks", () => {
    const outside = refusal(bytesOf(opening(), ramStart(), ramPart(page(16 * PAGE))));
    expect(outside.message).toContain("at 65536 of");
    const unknown = refusal(bytesOf(opening(), ramStart(), ramPart(page(0, 1, "other"))));
    expect(unknown.message).toContain('"other"');
  });

  test("refuses what follows the end, and a second package", () => {
    const behind = refusal(bytesOf(...WHOLE, eof));
    expect(behind.code).toBe("UNKNOWN_SECTION");
    const second = refusal(bytesOf(...BEFORE_PACKAGE, packaged(), packaged()));
    expect(second.code).toBe("BAD_PACKAGE");
  });
});

/** A stream with mapped-ram of two blocks, whose pages are holes; EOS comes behind them. */
function mappedStream(): Uint8Array {
  const blocks = [
    { name: "a", length: 3 * 2 ** 20, pageSize: PAGE },
    { name: "b", length: PAGE, pageSize: PAGE },
  ];
  return bytesOf(
    (writer) => {
      writeStreamOpening(writer, { machine: "pc", capabilities: ["mapped-ram"] });
      writeStartSection(writer, { sectionId: 7, ...RAM_SECTION });
      encodeRamSetup(writer, blocks, {
        afterBlock: ({ length }) => {
          const layout = mappedRamLayout(writer.bytes.length, length, PAGE);
          writeMappedRamHeader(writer, layout);
          writer.raw(new Uint8Array(layout.end - writer.bytes.length));
        },
      });
      writer.u64(RAM_FLAG.endOfSection);
      writeFooter(writer, 7);
    },
    ramEnd(),
    device,
    eof,
    description,
  );
}

test("a walk steps over the pages of mapped-ram, in a file without reading them", async () => {
  await using directory = new TemporaryDirectory("walk");
  const bytes = mappedStream();
  const path = directory.file("stream");
  writeFileSync(path, bytes);
  const { lines } = walked(bytes);
  expect(lines[1]).toBe("blocks a,b");
  using file = new FileReader(path);
  let pagesOffsets: (number | undefined)[] = [];
  const end = walkStream(file.reader, {
    ramStart: (blocks) => (pagesOffsets = blocks.map(({ mappedRam }) => mappedRam?.pagesOffset)),
  });
  expect(end).toEqual({ kind: "precopy", end: bytes.length });
  expect(pagesOffsets).toEqual([2 ** 20, 5 * 2 ** 20]);
});

test("a file that is cut off says so, with the byte; a directory is no file", async () => {
  await using directory = new TemporaryDirectory("walk");
  const path = directory.file("stream");
  writeFileSync(path, bytesOf(...PRECOPY).subarray(0, 5000));
  using file = new FileReader(path);
  expect(() => walkStream(file.reader, {})).toThrow("ends too early (at byte 5000");
  expect(() => new FileReader(directory.file("."))).toThrow("is not a file");
  expect(() => new FileReader(directory.file("none"))).toThrow("cannot be opened");
});
