import { expect, test } from "bun:test";
import { timeFor } from "../../../src/channel/time-limits.ts";

test("a large answer has the time that its bytes take on a slow link", () => {
  expect(timeFor(0, 30_000)).toBe(30_000);
  expect(timeFor(64 * 1024, 30_000)).toBe(31_000);
  expect(timeFor(16 * 2 ** 20, 1000)).toBe(257_000);
});
