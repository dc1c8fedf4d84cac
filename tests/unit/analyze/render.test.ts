/** An analysis as people read it. */
import { expect, test } from "bun:test";
import { renderAnalysis } from "../../../src/analyze/render.ts";
import { StreamSurvey } from "../../../src/analyze/stream-survey.ts";
import type { SnapshotAnalysis, StreamAnalysis } from "../../../src/report/analysis.ts";
import { StreamReader } from "../../../src/stream/reader.ts";
import { walkStream } from "../../../src/stream/walk.ts";
import { createPaint } from "../../../src/util/terminal.ts";
import { bytesOf, WHOLE } from "../../helpers/hand-made-stream.ts";

const plain = createPaint(false);

function whole(): StreamAnalysis {
  const bytes = bytesOf(...WHOLE);
  const survey = new StreamSurvey(0, () => {});
  walkStream(new StreamReader(bytes, bytes.length), survey);
  const file = { path: "guest", fileBytes: bytes.length, compression: null, libvirt: null };
  return survey.result(file, { endAt: bytes.length, problem: null });
}

test("a stream: what it is, what is in it, and that it is complete", () => {
  expect(renderAnalysis(whole(), plain)).toMatchSnapshot();
});

test("an image of libvirt that is cut off: its XML, and that it is not complete", () => {
  const libvirt = {
    ...{ format: "zstd", wasRunning: false, cookie: "", streamAt: 92 },
    xml: "<domain>\n  <name>vm</name>\n</domain>\n",
  };
  const problem = { code: "TRUNCATED", message: "It ends", hint: null };
  const text = renderAnalysis(
    { ...whole(), libvirt, compression: "zstd", complete: false, problem, uuid: "0-1" },
    plain,
  );
  expect(text).toStartWith("guest: incomplete libvirt save image (zstd) of postcopy-stress-1");
  expect(text).toContain("format zstd, the guest was paused; the stream begins at 92");
  expect(text).toContain("\n<domain>\n  <name>vm</name>\n</domain>\n");
  expect(text).toContain("not complete");
  expect(text).toContain("uuid         0-1");
});

test("many rounds: the first and the last", () => {
  const analysis = whole();
  const records = { normal: 1, zero: 0, xbzrle: 0, compressed: 0 };
  analysis.rounds = Array.from({ length: 50 }, (_, index) => {
    return { phase: "precopy" as const, round: index + 1, at: index, records, bytes: 1 };
  });
  const text = renderAnalysis(analysis, plain);
  expect(text).toMatch(/precopy round 10 .*\n +… 30 more rounds\n +precopy round 41 /);
});

test("a snapshot: what was checked, and each damage", () => {
  const analysis: SnapshotAnalysis = {
    ...{ version: 1, kind: "snapshot", path: "vm1", diskBytes: 5000, program: "postcopy 0.1.0" },
    ...{
      createdAt: "2026-01-02T03:04:05.000Z",
      machineType: "pc-i440fx-7.2",
      targetPageSize: 4096,
      uuid: "5ca1ab1e-0000-4000-8000-0123456789ab",
      descriptionBytes: 3000,
    },
    blocks: [
      ...[
        { name: "pc.ram", bytes: 2 ** 20, pageSize: 4096, file: "ram-0.bin", pagesStored: 200 },
      ].map((block) => ({ ...block, pagesDamaged: 1 })),
    ],
    ...{ package: null, devices: null, workingSetPages: 12, pagesVerified: 256, notes: [] },
    complete: false,
    problems: [{ code: "DAMAGED_SNAPSHOT", message: "The page at 0 is not right", hint: null }],
  };
  expect(renderAnalysis(analysis, plain)).toMatchSnapshot();
});
