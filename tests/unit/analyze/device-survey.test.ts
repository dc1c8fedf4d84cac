/** Device state in streams put together by hand, and what an analysis says of it. */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFooter, writeFullSection } from "../../../src/stream/section.ts";
import {
  bytesOf,
  COMPLETED,
  description,
  device,
  eof,
  opening,
  ramEnd,
  ramPart,
  ramStart,
  WHOLE,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { surveyIn } from "../../helpers/survey.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const directory = new TemporaryDirectory("survey");
const { analyseBytes, analysed } = surveyIn(directory);

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

describe("a stream that completed in precopy", () => {
  test("its last pages are those for which the guest stood", () => {
    const analysis = analysed(...COMPLETED, description("stress"));
    expect(analysis).toMatchObject({
      ...{ complete: true, ending: "precopy", package: null, notes: [] },
      rounds: [
        { phase: "precopy", round: 1 },
        { phase: "stopped", round: null },
      ],
      devices: { where: "stream", described: true, sections: [{ name: "stress", proven: true }] },
    });
    expect(analysed(...COMPLETED).devices).toMatchObject({ described: null, sections: [{}] });
  });

  test("a description of other devices is noted", () => {
    const analysis = analysed(...COMPLETED, description("stress", "another"));
    expect(analysis.devices).toMatchObject({ described: false, sections: [{ name: "stress" }] });
    expect(analysis.notes.join("\n")).toContain("lists other devices");
  });

  test("cut off within its devices, those that are whole are named", () => {
    const pieces = [...COMPLETED.slice(0, -2), device];
    const whole = bytesOf(...pieces);
    const half = analyseBytes(whole.subarray(0, -3));
    expect(half).toMatchObject({
      ...{ complete: false, ending: "precopy" },
      devices: { where: "stream", sections: [{ name: "stress", proven: false }] },
    });
    expect(half.endAt).toBe(whole.length - 3);
  });
});

describe("a device whose state comes ahead of memory", () => {
  /** Its body holds what looks like its footer, and what looks like another section. */
  const early: Piece = (writer) => {
    const section = { sectionId: 39, idstr: "virtio-mem-early", instanceId: 0, versionId: 1 };
    writeFullSection(writer, section);
    writer.raw(new Uint8Array([0x7e, 0, 0, 0, 39, 0xff, 4, 0, 0, 0, 7, 1, 0x41]));
    writeFooter(writer, section.sectionId);
  };
  const rest = [ramPart(zeroPages()), ramEnd(), device, eof];
  const text = description("virtio-mem-early", "stress");

  test("is told, and not missed where the description lists it", () => {
    for (const before of [true, false]) {
      const pieces = before ? [early, ramStart()] : [ramStart(), early];
      const analysis = analysed(opening(), ...pieces, ...rest, text);
      expect(analysis).toMatchObject({
        ...{ complete: true, ending: "precopy" },
        earlyDevices: [{ name: "virtio-mem-early", sectionId: 39, bytes: bytesOf(early).length }],
        devices: { described: true, sections: [{ name: "stress", proven: true }] },
      });
      const { opening: head, commands, ram, devices, description: json, total } = analysis.bytes;
      expect(head + commands + ram + devices + json + 1).toBe(total);
    }
  });

  test("before a switch as well, and cut off wherever that is", () => {
    const [first = opening(), ...others] = WHOLE;
    const analysis = analysed(first, early, ...others);
    expect(analysis).toMatchObject({ complete: true, earlyDevices: [{ sectionId: 39 }] });
    const bytes = bytesOf(first, early);
    for (let length = bytesOf(first).length + 1; length < bytes.length; length++) {
      expect(analyseBytes(bytes.subarray(0, length)).problem?.code).toBe("TRUNCATED");
    }
  });

  test("whose footer never comes is refused, and not searched for ever", () => {
    const endless: Piece = (writer) => {
      writeFullSection(writer, { sectionId: 39, idstr: "x", instanceId: 0, versionId: 1 });
      writer.raw(new Uint8Array(600 * 1024).fill(0x7e));
    };
    const { problem, endAt } = analysed(opening(), endless, ramStart());
    expect(problem?.code).toBe("BAD_FOOTER");
    expect(endAt).toBeLessThan(1000);
  });
});
