/**
 * The bytes of the boot sector against an assembly listing made with GNU as. What they do is shown
 * by a real QEMU in tests/integration/qemu-fixture.test.ts.
 */
import { describe, expect, test } from "bun:test";

import { DEFAULT_RANGE, buildBootSector } from "../../helpers/boot-sector.ts";

/** `as --32` and `ld -Ttext 0x7c00` of the same program, up to the descriptor table. */
const LISTING =
  "fa 31c0 8ed8 e492 0c02 24fe e692 0f0116607c 0f20c0 0c01 0f22c0 ea1f7c0800 " +
  "66b81000 8ed8 66baf803 b041 ee bf00001000 fe07 81c700100000 81ff0000c002 72f0 b042 ee ebe6";

/** The null, code and data descriptors, the table's limit and its address. */
const TABLE = "0000000000000000 ffff0000009acf00 ffff00000092cf00 1700 487c0000";

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

describe("buildBootSector", () => {
  const sector = buildBootSector();

  test("is one sector with its signature", () => {
    expect(sector.length).toBe(512);
    expect([...sector.subarray(510)]).toEqual([0x55, 0xaa]);
  });

  test("is what the assembler makes of it", () => {
    const code = LISTING.replaceAll(" ", "");
    const table = TABLE.replaceAll(" ", "");
    expect(hex(sector.subarray(0, code.length / 2))).toBe(code);
    expect(hex(sector.subarray(0x48, 0x48 + table.length / 2))).toBe(table);
    expect(sector.subarray(0x48 + table.length / 2, 510).every((byte) => byte === 0)).toBe(true);
  });

  test("takes the range it is given", () => {
    const other = hex(buildBootSector({ startAddress: 0x20_0000, endAddress: 0x4010_0000 }));
    expect(other).toContain("bf00002000");
    expect(other).toContain("81ff00001040");
  });

  test("fills the range first when asked", () => {
    const filled = hex(buildBootSector(DEFAULT_RANGE, { filled: true }));
    // imul eax, eax, 1664525 … jb, back over the 24 bytes of the loop
    expect(filled).toContain("69c00d661900055ff36e3c890783c70481ff0000c00272e8");
  });

  test("refuses ranges that are not whole pages, are empty, or overlap the BIOS", () => {
    const bad = [
      { startAddress: 0x10_0001, endAddress: 0x20_0000 },
      { startAddress: 0x10_0000, endAddress: 0x20_0800 },
      { startAddress: 0x20_0000, endAddress: 0x20_0000 },
      { startAddress: 0x0f_f000, endAddress: 0x20_0000 },
      { startAddress: 0x10_0000, endAddress: 0xffff_f000 },
    ];
    for (const range of bad) expect(() => buildBootSector(range)).toThrow(RangeError);
  });
});
