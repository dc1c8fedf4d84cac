import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  PONG_RUNNING,
  answerValue,
  chosenValue,
  helloValue,
  readHello,
  tokenValues,
} from "../../../src/stream/hello.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });

describe("the hello", () => {
  test("has values that say what they are", () => {
    fc.assert(
      fc.property(fc.nat(0xffff), (bits) => {
        expect(readHello(helloValue(bits))).toEqual({ kind: "hello", bits });
        expect(readHello(answerValue(bits))).toEqual({ kind: "answer", bits });
        expect(readHello(chosenValue(bits))).toEqual({ kind: "chosen", bits });
      }),
    );
  });

  test("carries a token in two values that fit a PING", () => {
    fc.assert(
      fc.property(u32, (token) => {
        const values = tokenValues(token);
        for (const value of values) expect(value).toBeWithin(0, 2 ** 32);
        const [high, low] = values.map(readHello);
        expect([high?.kind, low?.kind]).toEqual(["token high", "token low"]);
        expect((((high?.bits ?? 0) << 16) | (low?.bits ?? 0)) >>> 0).toBe(token);
      }),
    );
  });

  test("is not mistaken for the numbers that a QEMU sends, nor for `running`", () => {
    for (const value of [0, 1, 2, 3, 4, 0xffff_ffff, PONG_RUNNING]) {
      expect(readHello(value)).toBeUndefined();
    }
  });
});
