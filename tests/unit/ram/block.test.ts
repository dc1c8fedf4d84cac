import { describe, expect, test } from "bun:test";
import {
  blockNamed,
  blockNamedIn,
  pageSizeSummary,
  targetPages,
  targetPagesPerHostPage,
  totalBytes,
  totalPages,
} from "../../../src/ram/block.ts";
import type { RamBlock } from "../../../src/ram/block.ts";

const MEBIBYTE = 2 ** 20;
const GIBIBYTE = 2 ** 30;

/** As a PC has them: a large one, one of huge pages, a ROM of an odd size. */
const BLOCKS: RamBlock[] = [
  { index: 0, name: "pc.ram", length: 6 * GIBIBYTE, pageSize: 4096, address: 2 ** 46 },
  { index: 1, name: "huge", length: 4 * MEBIBYTE, pageSize: 2 * MEBIBYTE, address: 2 ** 45 },
  { index: 2, name: "/rom@etc/acpi/tables", length: 0x5000, pageSize: 4096, address: 0x10000 },
];

describe("RAM blocks", () => {
  test("are counted in target pages, whatever their host pages are", () => {
    expect(BLOCKS.map(targetPages)).toEqual([1_572_864, 1024, 5]);
    expect(BLOCKS.map(targetPagesPerHostPage)).toEqual([1, 512, 1]);
    expect(totalPages(BLOCKS)).toBe(1_573_893);
    expect(totalBytes(BLOCKS)).toBe(6 * GIBIBYTE + 4 * MEBIBYTE + 0x5000);
  });

  test("have one summary of their page sizes", () => {
    expect(pageSizeSummary(BLOCKS)).toBe(0x201000);
    expect(pageSizeSummary(BLOCKS.slice(1, 2))).toBe(0x200000);
    const gigantic = { ...BLOCKS[0]!, pageSize: GIBIBYTE };
    expect(pageSizeSummary([...BLOCKS, gigantic])).toBe(0x40201000);
  });

  test("are found by their whole name", () => {
    expect(blockNamed(BLOCKS, "huge")).toBe(BLOCKS[1]);
    expect(blockNamed(BLOCKS, "pc.ra")).toBeUndefined();
  });

  test("are found by the bytes of it among others", () => {
    const bytes = new TextEncoder().encode("pc.ramhuge\0pc.rom");
    expect(blockNamedIn(BLOCKS, bytes, 0, 6)).toBe(BLOCKS[0]);
    expect(blockNamedIn(BLOCKS, bytes, 6, 4)).toBe(BLOCKS[1]);
    for (const [at, length] of [
      [0, 5],
      [0, 7],
      [6, 5],
      [11, 6],
      [0, 0],
    ] as const) {
      expect(blockNamedIn(BLOCKS, bytes, at, length)).toBeUndefined();
    }
    // What lies behind the bytes is no name.
    expect(blockNamedIn(BLOCKS, bytes.subarray(0, 9), 6, 4)).toBeUndefined();
  });
});
