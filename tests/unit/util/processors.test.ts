import { expect, test } from "bun:test";
import { channelsForProcessors } from "../../../src/util/processors.ts";

test("a channel for two processors, one alone on few, and no more than four", () => {
  const counts = [1, 2, 3, 4, 5, 6, 8, 64].map((processors) => channelsForProcessors(processors));
  expect(counts).toEqual([1, 1, 1, 2, 2, 3, 4, 4]);
});
