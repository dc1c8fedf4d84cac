/** A snapshot looked through: every damage in it is found, not only the first. */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { surveySnapshot } from "../../../src/analyze/snapshot-survey.ts";
import { workingSetPath } from "../../../src/guests/snapshot/layout.ts";
import { recordRequests } from "../../../src/guests/stored/working-set.ts";
import { analysisSchema } from "../../../src/report/analysis.ts";
import type { SnapshotAnalysis } from "../../../src/report/analysis.ts";
import { bytesOf, descriptionText, unknownDevice } from "../../helpers/hand-made-stream.ts";
import { packageOfSections } from "../../../src/stream/package.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const PAGES = 600;

const directory = new TemporaryDirectory("survey");
let path = "";
let made = 0;

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

/** Two blocks; of the second, the last page alone is not zeros. */
beforeEach(() => {
  path = directory.file(`snapshot-${made++}`);
  mkdirSync(path);
  const setup = ["first", "second"].map((name) => ({ name, length: PAGES * PAGE, pageSize: PAGE }));
  const kept = new KeptGuest(path, setup);
  for (let page = 0; page < PAGES; page++) {
    kept.store(kept.postcopy, 0, page, filledPage(1 + (page % 200)));
  }
  kept.store(kept.postcopy, 1, PAGES - 1, filledPage(9));
  kept.finish();
});

function survey(verify = true): SnapshotAnalysis {
  const analysis = surveySnapshot(path, { verify, progress: () => {} });
  expect(analysisSchema.parse(analysis)).toEqual(analysis);
  return analysis;
}

function flip(name: string, at: number): void {
  const bytes = readFileSync(`${path}/${name}`);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(`${path}/${name}`, bytes);
}

function damages(): string[] {
  return survey().problems.map(({ message }) => message);
}

describe("a snapshot", () => {
  test("that is in order", () => {
    expect(survey()).toMatchObject({
      ...{ complete: true, problems: [], pagesVerified: 2 * PAGES, workingSetPages: null },
      blocks: [
        { name: "first", file: "ram-0.bin", pagesStored: PAGES, pagesDamaged: 0 },
        { name: "second", file: "ram-1.bin", pagesStored: 1, pagesDamaged: 0 },
      ],
      package: { pings: [] },
      // A hundred bytes of zeros are no sections.
      devices: { where: "package", bytes: 100, sections: [{ name: null, proven: false }] },
    });
  });

  test("whose pages are not asked for is not read", () => {
    flip("ram-0.bin", 5);
    expect(survey(false)).toMatchObject({
      ...{ complete: true, pagesVerified: null },
      blocks: [{ pagesDamaged: null }, { pagesDamaged: null }],
    });
  });

  test("with a recorded working set, and with a damaged one", () => {
    const blocks = [0, 1].map((index) => {
      return { index, name: "", length: PAGES * PAGE, pageSize: PAGE, address: 0 };
    });
    recordRequests(workingSetPath(path), blocks, new Uint32Array([7, 3, 7]));
    expect(survey()).toMatchObject({ workingSetPages: 2, notes: [] });
    flip("working-set.bin", 21);
    const { workingSetPages, notes, complete } = survey();
    expect({ workingSetPages, complete }).toEqual({ workingSetPages: null, complete: true });
    expect(notes).toHaveLength(1);
  });
});

test("a guest that completed in precopy: its devices, as they are described", () => {
  const sections = bytesOf(unknownDevice(3, "cpu", 1, 2), unknownDevice(9, "pci", 3));
  const described = directory.file("described");
  mkdirSync(described);
  const kept = new KeptGuest(described, [{ name: "ram", length: PAGE, pageSize: PAGE }]);
  const text = descriptionText("cpu", "pci");
  kept.finishWith(packageOfSections(sections, 0), text);
  path = described;
  expect(survey()).toMatchObject({
    ...{ complete: true, descriptionBytes: text.length, uuid: null },
    devices: { described: true, sections: [{ name: "cpu" }, { name: "pci" }] },
  });
  flip("vm-description.json", 4);
  const what = "vm-description.json does not have the checksum that the manifest says";
  expect(damages()).toEqual([what]);
});

describe("damage is named", () => {
  test("page by page, also in a hole", () => {
    flip("ram-0.bin", 300 * PAGE + 17);
    flip("ram-1.bin", 5 * PAGE);
    expect(damages()).toEqual([
      `The page at ${300 * PAGE} of ram-0.bin (first) does not have its checksum`,
      `The page at ${5 * PAGE} of ram-1.bin (second) does not have its checksum`,
    ]);
    expect(survey()).toMatchObject({
      complete: false,
      blocks: [{ pagesDamaged: 1 }, { pagesDamaged: 1 }],
    });
  });

  test("with a count where it is most of a file", () => {
    const bytes = readFileSync(`${path}/ram-0.bin`);
    writeFileSync(`${path}/ram-0.bin`, bytes.fill(0));
    const found = damages();
    expect(found).toHaveLength(17);
    expect(found.at(-1)).toBe(`${PAGES - 16} more pages of ram-0.bin do not have their checksums`);
    expect(survey().blocks[0]?.pagesDamaged).toBe(PAGES);
  });

  test("file by file, all of them at once", () => {
    truncateSync(`${path}/ram-0.bin`, PAGE);
    flip("ram-1.crc32", 8);
    flip("package.bin", 20);
    expect(damages()).toEqual([
      `ram-0.bin has ${PAGE} bytes, its block has ${PAGES * PAGE}`,
      "ram-1.crc32 does not have the checksum that the manifest says",
      "package.bin does not have the checksum that the manifest says",
    ]);
    rmSync(`${path}/ram-1.bin`);
    rmSync(`${path}/package.bin`);
    expect(damages().join("\n")).toMatch(
      /ram-1\.bin cannot be opened[\s\S]*package\.bin cannot be/,
    );
  });

  test("of the manifest, without which there is nothing to tell", () => {
    flip("manifest.json", 3);
    expect(() => survey()).toThrow("manifest.json is not");
    rmSync(`${path}/manifest.json`);
    expect(() => survey()).toThrow("is not a snapshot");
  });
});
