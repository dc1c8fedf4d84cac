import { expect, test } from "bun:test";
import * as fc from "fast-check";

import { shellLine } from "../../../src/util/shell.ts";

test("words that need nothing are left as they are", () => {
  expect(shellLine(["postcopy", "source", "--to", "tcp:127.0.0.1:4444"])).toBe(
    "postcopy source --to tcp:127.0.0.1:4444",
  );
});

test("a shell takes the line for just these words", () => {
  const words = fc.array(
    fc.string({ unit: fc.constantFrom("a", "'", '"', "$", "`", " ", "\\", "*", ";", "\n") }),
    {
      minLength: 1,
    },
  );
  fc.assert(
    fc.property(words, (list) => {
      const print = `printf '%s\\0' ${shellLine(list)}`;
      const { stdout } = Bun.spawnSync(["/bin/sh", "-c", print]);
      expect(stdout.toString().split("\0").slice(0, -1)).toEqual(list);
    }),
    { numRuns: 30 },
  );
});
