import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  readReceivedBitmap,
  receivedBitmapBytes,
  writeReceivedBitmapEnd,
  writeReceivedBitmapStart,
} from "../../../src/stream/received-bitmap.ts";
import { readReturnPathMessage } from "../../../src/stream/return-path.ts";
import type { StreamReader } from "../../../src/stream/reader.ts";
import type { StreamWriter } from "../../../src/stream/writer.ts";
import { codecLaws, hexBytes, nameArbitrary, refusalOf, wholeReader, written } from "./laws.ts";

interface Answer {
  block: string;
  pages: number;
  bitmap: Uint8Array;
}

const answerArbitrary: fc.Arbitrary<Answer> = fc
  .record({ block: nameArbitrary(30), pages: fc.integer({ min: 1, max: 5000 }) })
  .chain(({ block, pages }) => {
    const size = Math.ceil(pages / 64) * 8;
    return fc
      .uint8Array({ minLength: size, maxLength: size })
      .map((bitmap) => ({ block, pages, bitmap }));
  });

function writeAnswer(writer: StreamWriter, { block, pages, bitmap }: Answer): void {
  writeReceivedBitmapStart(writer, block, pages);
  writer.raw(bitmap);
  writeReceivedBitmapEnd(writer);
}

/** Reads the message and its bitmap; damage can make it a message of another kind. */
function readAnswer(reader: StreamReader, pages: number): Answer {
  const message = readReturnPathMessage(reader);
  if (message.kind !== "receivedBitmap") {
    return { block: message.kind, pages: 0, bitmap: new Uint8Array(0) };
  }
  return { block: message.block, pages, bitmap: readReceivedBitmap(reader, message.block, pages) };
}

/** Block "a": the message, whose length counts the name alone. */
const MESSAGE = "0005 0002 01 61";
const END = "0123456789abcdef";

describe("the received bitmap", () => {
  codecLaws("bitmap", {
    arbitrary: answerArbitrary,
    write: writeAnswer,
    read: (reader, { pages }) => readAnswer(reader, pages),
  });

  test("in bytes: pages 0, 9 and 64 of 65 have come", () => {
    const bytes = hexBytes(
      MESSAGE,
      "0000000000000010",
      "01 02 00 00 00 00 00 00  01 00 00 00 00 00 00 00",
      END,
    );
    const bitmap = new Uint8Array(16);
    for (const page of [0, 9, 64]) bitmap[page >> 3]! |= 1 << (page & 7);
    expect(written((w) => writeAnswer(w, { block: "a", pages: 65, bitmap }))).toEqual(bytes);
    expect(readAnswer(wholeReader(bytes), 65).bitmap).toEqual(bitmap);
  });

  test("has whole words of 64 pages", () => {
    expect([0, 1, 64, 65, 2 ** 28].map(receivedBitmapBytes)).toEqual([0, 8, 8, 16, 2 ** 25]);
    expect(() => receivedBitmapBytes(2 ** 40)).toThrow(RangeError);
  });

  test("of another size is refused before it is read", () => {
    for (const size of ["0000000000000008", "0000000000000018", "00000000ffffffff"]) {
      const bytes = hexBytes(MESSAGE, size);
      expect(refusalOf(() => readAnswer(wholeReader(bytes), 65))).toBe("BAD_LENGTH");
    }
  });

  test("without its end mark is refused", () => {
    for (const mark of ["0123456789abcdee", "1123456789abcdef"]) {
      const bytes = hexBytes(MESSAGE, "0000000000000008", "00".repeat(8), mark);
      expect(refusalOf(() => readAnswer(wholeReader(bytes), 64))).toBe("BAD_VALUE");
    }
  });
});
