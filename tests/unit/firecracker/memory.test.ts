/** A guest in Firecracker's memory files: pages of the last file that has them, and what is no guest. */
import { expect, test } from "bun:test";
import { closeSync, openSync, writeFileSync } from "node:fs";
import { renderAnalysis } from "../../../src/analyze/render.ts";
import { surveyMemory } from "../../../src/analyze/memory-survey.ts";
import { memoryFilesWord, parseMemoryFiles } from "../../../src/guests/firecracker/guest-word.ts";
import { openMemory } from "../../../src/guests/firecracker/open.ts";
import type { OpenedMemory } from "../../../src/guests/firecracker/open.ts";
import { MemoryTable } from "../../../src/guests/firecracker/page-table.ts";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import { recordRequests } from "../../../src/guests/stored/working-set.ts";
import { analysisSchema } from "../../../src/report/analysis.ts";
import { createPaint } from "../../../src/util/terminal.ts";
import { memoryOf, PAGE_BYTES, writeMemoryFile } from "../../helpers/memory-files.ts";
import type { Contents } from "../../helpers/memory-files.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGES = 64;

function sparse(path: string, contents: Contents, pages = PAGES): string {
  return writeMemoryFile(path, pages, contents);
}

function close({ layers }: OpenedMemory): void {
  for (const { descriptor } of layers) closeSync(descriptor);
}

/** The first byte of every page as it is served, checked to be that of all its bytes. */
function served(memory: OpenedMemory): number[] {
  const pages = new StoredPages(new MemoryTable(memory));
  const [block] = memory.blocks;
  if (block === undefined) throw new Error("no block");
  const page = new Uint8Array(PAGE_BYTES);
  return Array.from({ length: block.length / PAGE_BYTES }, (_, index) => {
    page.fill(0xee);
    pages.copyPage(block, index * PAGE_BYTES, page, 0);
    const [value = 0] = page;
    expect(page.every((byte) => byte === value)).toBe(true);
    expect(pages.isZero(block, index * PAGE_BYTES)).toBe(value === 0);
    return value;
  });
}

test("a full snapshot, and diffs over it: each page is that of the last file that has it", async () => {
  await using directory = new TemporaryDirectory("memory");
  const { full, first, second } = {
    full: { 0: 1, 1: 1, 2: 1, 40: 1, 63: 1 },
    first: { 1: 2, 2: 2, 41: 2 },
    second: { 2: 3, 62: 3 },
  };
  const files = Object.entries({ full, first, second }).map(([name, contents]) => {
    return sparse(directory.file(name), contents);
  });

  const alone = openMemory(files.slice(0, 1));
  expect(served(alone)).toEqual(memoryOf(PAGES, full));
  close(alone);
  const both = openMemory(files);
  expect(served(both)).toEqual(memoryOf(PAGES, full, first, second));
  expect(both.blocks).toEqual([
    { index: 0, name: "memory", length: PAGES * PAGE_BYTES, pageSize: PAGE_BYTES, address: 0 },
  ]);
  close(both);
});

test("a file that is written to while it is served is damaged", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), { 5: 1 });
  const memory = openMemory([full]);
  sparse(full, { 5: 9 });
  expect(() => served(memory)).toThrow(/page at 20480 of .*full has changed since it was opened/);
  close(memory);
});

test("what is no memory, or not of one guest, is refused by name", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), {});
  const other = sparse(directory.file("other"), {}, 32);
  const odd = directory.file("odd");
  writeFileSync(odd, Buffer.alloc(4097));
  expect(() => openMemory([full, other])).toThrow(/other has 131072 bytes, and .*full has 262144/);
  expect(() => openMemory([odd])).toThrow(/odd has 4097 bytes, which are no whole pages/);
  expect(() => openMemory([directory.file("none")])).toThrow(/none cannot be opened/);
  expect(() => openMemory([directory.path])).toThrow(/cannot be opened/);
});

test("a diff that a copy has filled would hide what did not change: it is refused by name", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), { 0: 1 });
  const diff = directory.file("diff");
  writeFileSync(diff, Buffer.alloc(PAGES * PAGE_BYTES, 7));
  expect(() => openMemory([full, diff])).toThrow(/diff has no holes, so it is no diff snapshot/);
  // Alone it is a full one.
  const alone = openMemory([diff]);
  expect(served(alone)).toEqual(Array.from({ length: PAGES }, () => 7));
  close(alone);
});

test("a word names the files, and a comma in a path is written twice", () => {
  const names: [string, string[]][] = [
    ["mem", ["mem"]],
    ["/a/mem,/b/diff", ["/a/mem", "/b/diff"]],
    ["a,,b,c", ["a,b", "c"]],
    ["a,,,b", ["a,", "b"]],
    ["a:b", ["a:b"]],
  ];
  for (const [text, paths] of names) {
    expect(parseMemoryFiles(text)).toEqual(paths);
    expect(memoryFilesWord(paths)).toBe(`firecracker:${text}`);
  }
  for (const text of ["", ",", "mem,", ",mem", "a,b,"]) {
    expect(() => parseMemoryFiles(text)).toThrow("has no file, or an empty one");
  }
});

test("an analysis: what each file has, what of it is served, what was recorded", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), { 0: 1, 1: 1, 2: 1 });
  const diff = sparse(directory.file("diff"), { 2: 2, 9: 2 });
  const block = { index: 0, name: "memory", length: PAGES * PAGE_BYTES };
  const blocks = [{ ...block, pageSize: PAGE_BYTES, address: 0 }];
  recordRequests(`${diff}.postcopy-working-set`, blocks, Uint32Array.of(9, 2, 9));
  const analysis = surveyMemory([full, diff]);
  expect(analysisSchema.parse(analysis)).toEqual(analysis);
  expect(analysis).toMatchObject({
    files: [
      { path: full, pagesStored: 3, pagesServed: 2 },
      { path: diff, pagesStored: 2, pagesServed: 2 },
    ],
    ...{ pagesAbsent: PAGES - 4, workingSetPages: 2, notes: [] },
  });
  const text = renderAnalysis(analysis, createPaint(false));
  expect(text).toContain("memory       256 KiB: 64 pages of 4K, 60 in no file, which are zeros");
  expect(text).toContain("working set  2 pages recorded");
  writeFileSync(`${diff}.postcopy-working-set`, "PCWS");
  const damaged = surveyMemory([full, diff]);
  expect(damaged.workingSetPages).toBeNull();
  expect(damaged.notes).toEqual(["The recorded working set is damaged, and not used"]);
});

test("a file that is still being written is not served", async () => {
  await using directory = new TemporaryDirectory("memory");
  const full = sparse(directory.file("full"), { 0: 1 });
  const diff = sparse(directory.file("diff"), { 1: 2 });
  const writer = openSync(diff, "r+");
  expect(() => openMemory([full, diff])).toThrow(/Another process has .*diff open for writing/);
  closeSync(writer);
  // Who reads it is in nobody's way.
  const reader = openSync(full, "r");
  close(openMemory([full, diff]));
  closeSync(reader);
});
