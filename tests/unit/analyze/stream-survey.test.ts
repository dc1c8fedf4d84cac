/** Streams put together by hand, and what an analysis says of each. */
import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { writeStreamOpening } from "../../../src/stream/header.ts";
import { StreamError } from "../../../src/util/errors.ts";
import {
  advise,
  BEFORE_PACKAGE,
  bytesOf,
  command,
  COMPLETED,
  description,
  device,
  discard,
  eof,
  HAND_MADE_BLOCK,
  HAND_MADE_PAGES,
  listen,
  opening,
  openReturnPath,
  packaged,
  page,
  ping,
  ramEnd,
  ramPart,
  ramStart,
  run,
  WHOLE,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { libvirtSave } from "../../helpers/libvirt-save.ts";
import { surveyIn } from "../../helpers/survey.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
/** The command that announces a package. */
const PACKAGED_BYTES = 9;
const directory = new TemporaryDirectory("survey");
const { analyseBytes, analysed } = surveyIn(directory);

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

/** The offset at which each piece begins. */
function offsetsOf(pieces: readonly Piece[]): number[] {
  let at = 0;
  return pieces.map((piece) => {
    const here = at;
    at += bytesOf(piece).length;
    return here;
  });
}

describe("a stream that was switched over", () => {
  const pieces = [
    opening(),
    openReturnPath,
    ping(1),
    advise(),
    ramStart(),
    ramPart(page(0, 1), page(PAGE, 2), page(5 * PAGE)),
    ramPart(page(9 * PAGE, 1), page(PAGE, 3), page(2 * PAGE, 3), page(15 * PAGE, 1)),
    discard(HAND_MADE_BLOCK, { start: PAGE, length: PAGE }, { start: 3 * PAGE, length: 2 * PAGE }),
    discard(HAND_MADE_BLOCK, { start: 6 * PAGE, length: 3 * PAGE }),
    packaged(),
    ramPart(page(8 * PAGE, 4), page(PAGE, 4)),
    ramPart(page(3 * PAGE), page(4 * PAGE), page(6 * PAGE), page(7 * PAGE)),
    ramEnd(),
    eof,
  ];
  const at = offsetsOf(pieces);
  const analysis = analysed(...pieces);

  test("its pages are told by kind, by block and by round", () => {
    const kinds = { xbzrle: 0, compressed: 0 };
    expect(analysis.records).toEqual({ ...kinds, normal: 8, zero: 5 });
    expect(analysis.blocks).toHaveLength(1);
    expect(analysis.blocks[0]).toMatchObject({ name: HAND_MADE_BLOCK, pageSize: PAGE });
    expect(analysis.blocks[0]?.records).toEqual(analysis.records);
    const [first = NaN, second = NaN, , , , postcopy = NaN] = at.slice(5);
    expect(second).toBeGreaterThan(first);
    const rounds = analysis.rounds.map(({ phase, round, records }) => {
      return { phase, round, normal: records.normal, zero: records.zero };
    });
    expect(rounds).toEqual([
      { phase: "precopy", round: 1, normal: 3, zero: 1 },
      { phase: "precopy", round: 2, normal: 3, zero: 0 },
      { phase: "postcopy", round: null, normal: 2, zero: 4 },
    ]);
    // A PART has five bytes before its first record.
    expect(analysis.rounds.map((round) => round.at)).toEqual([
      first + 5,
      second + 5 + bytesOf(page(9 * PAGE, 1)).length,
      postcopy + 5,
    ]);
    expect(analysis.rounds.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(analysis.bytes.pages);
  });

  test("what is discarded is told, and which pages have no content at the end", () => {
    const discards = { commands: 2, ranges: 3, bytes: 6 * PAGE };
    expect(analysis).toMatchObject({ discards, blocks: [{ discards, pagesMissing: 5 }] });
    expect(analysis.repeatedAfterSwitch).toBe(0);
    expect(analysis.notes).toHaveLength(1);
    expect(analysis.notes[0]).toStartWith("5 pages have no content");
  });

  test("its steps are told in their order, what repeats itself in one", () => {
    const steps = analysis.steps.map(({ what, detail, times, inPackage }) => {
      return `${inPackage ? "  " : ""}${what} ${detail ?? ""} ${times}`;
    });
    expect(steps).toEqual([
      "OPEN_RETURN_PATH  1",
      "PING 1 1",
      "POSTCOPY_ADVISE pages of 4K 1",
      "START ram  1",
      "PART ram  2",
      `POSTCOPY_RAM_DISCARD "${HAND_MADE_BLOCK}" 2`,
      `PACKAGED ${(at[10] ?? 0) - (at[9] ?? 0) - PACKAGED_BYTES} B 1`,
      "  POSTCOPY_LISTEN  1",
      "  FULL devices, 390 B 1",
      "  PING 3 1",
      "  POSTCOPY_RUN  1",
      "PART ram  2",
      "END ram  1",
      "EOF  1",
    ]);
  });

  test("each byte of it belongs to one part", () => {
    const { opening: head, commands, ram, devices, description: text, total } = analysis.bytes;
    expect(head + commands + ram + analysis.bytes.package + devices + text + 1).toBe(total);
    expect(total).toBe(bytesOf(...pieces).length);
    expect(analysis).toMatchObject({ complete: true, problem: null, endAt: total });
    expect(analysis.devices).toMatchObject({ where: "package", sections: [{ proven: true }] });
  });

  test("wherever it is cut off, it is told what was before, and where it ends", () => {
    const whole = bytesOf(...pieces);
    let pages = 0;
    // The byte behind the opening says that it is over.
    for (
      let length = (at[1] ?? 0) + 1;
      length < whole.length;
      length += length % 7 === 0 ? 331 : 13
    ) {
      const half = analyseBytes(whole.subarray(0, length));
      expect(half.complete).toBe(false);
      expect(half.problem?.code).toBe("TRUNCATED");
      expect(half.problem?.message).toContain(`at byte ${length} of`);
      expect(half.machineType).toBe(analysis.machineType);
      const seen = half.records.normal + half.records.zero;
      expect(seen).toBeGreaterThanOrEqual(pages);
      pages = seen;
      expect(half.ending).toBe(length >= (at[9] ?? 0) + PACKAGED_BYTES ? "postcopy" : null);
    }
    expect(analyseBytes(whole.subarray(0, -1)).rounds).toEqual(analysis.rounds);
  });
});

test("pages without content are counted as a guest would miss them", () => {
  const places = fc.array(fc.nat(HAND_MADE_PAGES - 1), { maxLength: 30 });
  fc.assert(
    fc.property(places, places, places, (before, discarded, after) => {
      const there = new Set(before);
      for (const place of discarded) there.delete(place);
      let repeated = 0;
      for (const place of after) {
        if (there.has(place)) repeated += 1;
        there.add(place);
      }
      const records = (list: number[]): Piece[] => list.map((place) => page(place * PAGE));
      const analysis = analysed(
        ...[opening(), advise(), ramStart(), ramPart(...records(before))],
        ...discarded.map((place) =>
          discard(HAND_MADE_BLOCK, { start: place * PAGE, length: PAGE }),
        ),
        ...[packaged(), ramPart(...records(after)), ramEnd(), eof],
      );
      expect(analysis.complete).toBe(true);
      expect(analysis.blocks[0]?.pagesMissing).toBe(HAND_MADE_PAGES - there.size);
      expect(analysis.repeatedAfterSwitch).toBe(repeated);
    }),
    { numRuns: 100 },
  );
});

test("what makes a QEMU destination hang or pause is noted", () => {
  const quiet = analysed(
    ...[opening(), advise(), ramStart(), packaged(), ramEnd(zeroPages()), eof],
  );
  expect(quiet.notes).toEqual([
    "Nothing is discarded before the switch, which makes a QEMU destination hang",
  ]);
  const twice = analysed(...BEFORE_PACKAGE, packaged(), ramPart(zeroPages()), ramEnd(page(0)), eof);
  expect(twice.notes.join()).toContain("1 pages come twice after the switch");
});

test("a package that is damaged is looked at as far as it goes", () => {
  const broken = analysed(...BEFORE_PACKAGE, packaged(listen, device, ping(3)), ramEnd(), eof);
  expect(broken.problem?.code).toBe("BAD_PACKAGE");
  const at = bytesOf(...BEFORE_PACKAGE).length + PACKAGED_BYTES + bytesOf(listen).length;
  expect(broken.devices?.sections[0]).toMatchObject({ name: "stress", proven: false, at });
  const other = analysed(...BEFORE_PACKAGE, packaged(device, run), ramEnd(), eof);
  expect(other.problem?.code).toBe("BAD_PACKAGE");
});

test("capabilities, uuid and the head of libvirt are told", () => {
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => i * 17);
  const capabilities = ["x-ignore-shared"];
  const head: Piece = (writer) => writeStreamOpening(writer, { machine: "pc", capabilities, uuid });
  const xml = "<domain type='kvm'/>";
  const image = libvirtSave({ format: "raw", xml, cookie: "<cookie/>" });
  const stream = bytesOf(head, ...WHOLE.slice(1, 3));
  const analysis = analyseBytes(Buffer.concat([image, stream]));
  expect(analysis).toMatchObject({
    ...{ machineType: "pc", capabilities, uuid: "00112233-4455-6677-8899-aabbccddeeff" },
    libvirt: { format: "raw", xml, cookie: "<cookie/>", wasRunning: true, streamAt: image.length },
    ...{ complete: false, problem: { code: "TRUNCATED" } },
    bytes: { total: stream.length },
  });
});

test("of bytes that are no stream there is nothing to tell", () => {
  expect(() => analyseBytes(Buffer.from("SSH-2.0-OpenSSH_9.2\r\n"))).toThrow(StreamError);
  expect(() => analyseBytes(new Uint8Array(3))).toThrow("ends too early");
});

test("whatever bytes are damaged: an analysis, or a refusal that says what", () => {
  const whole = [bytesOf(...WHOLE), bytesOf(...COMPLETED, description("stress"))];
  const damage = fc.array(fc.tuple(fc.nat(2 ** 20), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.nat(1), damage, (which, places) => {
      const bytes = (whole[which] ?? new Uint8Array(0)).slice();
      for (const [at, value] of places) bytes[at % bytes.length] = value;
      try {
        const { complete, problem } = analyseBytes(bytes);
        expect(complete).toBe(problem === null);
      } catch (error) {
        expect(error).toBeInstanceOf(StreamError);
      }
    }),
    { numRuns: 1000 },
  );
});

test("a stream of nothing but commands keeps the list of them short", () => {
  const pings = Array.from({ length: 3000 }, (_, value) => ping(value));
  const analysis = analysed(opening(), command({ kind: "openReturnPath" }), ...pings);
  expect(analysis.steps).toHaveLength(1000);
  expect(analysis.stepsOmitted).toBe(2001);
  expect(analysis.notes.at(-1)).toContain("2,001 more");
});
