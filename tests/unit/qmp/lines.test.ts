/** Lines out of pieces, wherever the pieces are cut. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";

import { LineFramer } from "../../../src/qmp/lines.ts";

describe("LineFramer", () => {
  test("gives the same lines, whatever the pieces", () => {
    const line = fc.stringMatching(/^[a-z]{1,20}$/);
    const cuts = fc.array(fc.nat(200));
    fc.assert(
      fc.property(fc.array(line), cuts, (lines, at) => {
        const text = lines.map((each) => `${each}\r\n`).join("");
        const places = [0, ...at.map((cut) => cut % (text.length + 1)).sort((a, b) => a - b)];
        const framer = new LineFramer(1000);
        const taken = places.flatMap((from, i) => framer.take(text.slice(from, places[i + 1])));
        expect(taken).toEqual(lines);
      }),
    );
  });
  test("leaves out empty lines", () => {
    expect(new LineFramer(10).take("\r\n\na\n \n")).toEqual(["a"]);
  });
  test("takes a line of the limit and none above, in one piece or in many", () => {
    expect(new LineFramer(4).take("four\n")).toEqual(["four"]);
    expect(new LineFramer(4).take("fives\n")).toBeUndefined();
    const framer = new LineFramer(4);
    expect(framer.take("a\nfou")).toEqual(["a"]);
    expect(framer.take("r")).toEqual([]);
    expect(framer.take("s")).toBeUndefined();
  });
});
