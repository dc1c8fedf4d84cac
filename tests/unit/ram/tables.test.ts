/** Tables of a guest's pages: made for guests that a host can have, and refused by name for others. */
import { expect, test } from "bun:test";
import { availableBytes, checkTables } from "../../../src/ram/tables.ts";

const GIB = 2 ** 30;

function codeOf(lengths: readonly number[], bytesAPage: number): string {
  try {
    checkTables(
      lengths.map((length) => ({ length })),
      bytesAPage,
    );
    return "fits";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : "no code";
  }
}

test("a guest of some GiB has tables of some MiB", () => {
  expect(availableBytes()).toBeGreaterThan(2 ** 26);
  expect(codeOf([4 * GIB, GIB], 12)).toBe("fits");
});

test("one whose tables would take the host's memory is refused", () => {
  const pages = Math.ceil(availableBytes() / 12);
  expect(codeOf([pages * 4096], 12)).toBe("NO_MEMORY");
  expect(
    codeOf(
      Array.from({ length: 16 }, () => (pages / 16) * 4096),
      12,
    ),
  ).toBe("NO_MEMORY");
  expect(codeOf([2 ** 47], 9)).toBe("NO_MEMORY");
});

test("so is one with a block whose table no engine makes", () => {
  // 4 TiB: a table of 8 GiB, where the longest there is has 4.
  expect(codeOf([4096 * GIB], 8)).toBe("NO_MEMORY");
});
