/**
 * What must hold of every codec, whatever it encodes: the suite that each codec's test runs with
 * its own values. A codec is given as the function that writes a value and the one that reads it.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { StreamReader } from "../../../src/stream/reader.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { StreamError } from "../../../src/util/errors.ts";

/** Bytes written by `write`, as the peer gets them. */
export function written(write: (writer: StreamWriter) => void): Uint8Array<ArrayBuffer> {
  const writer = new StreamWriter();
  write(writer);
  return writer.bytes.slice();
}

/** A reader that has all of `bytes` and can get no more. */
export function wholeReader(bytes: Uint8Array): StreamReader {
  return new StreamReader(bytes, bytes.length);
}

/** A reader with a buffer of `capacity` bytes that never gets a byte more than it asks for. */
export function dripReader(bytes: Uint8Array, capacity: number): StreamReader {
  let sent = 0;
  return new StreamReader(new Uint8Array(capacity), 0, (reader, least) => {
    if (sent + least > bytes.length) throw new StreamError("TRUNCATED", "The peer has closed");
    if (reader.end + least > reader.bytes.length) reader.compact();
    reader.bytes.set(bytes.subarray(sent, sent + least), reader.end);
    reader.end += least;
    sent += least;
  });
}

/** The bytes of a specification as people write them down: hexadecimal, spaces anywhere. */
export function hexBytes(...lines: string[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.from(lines.join("").replaceAll(" ", ""), "hex"));
}

/** The code of the StreamError that `action` throws; any other outcome fails the test. */
export function refusalOf(action: () => unknown): string {
  return refusalErrorOf(action).code;
}

/** The StreamError that `action` throws; any other outcome fails the test. */
export function refusalErrorOf(action: () => unknown): StreamError {
  try {
    action();
  } catch (error) {
    if (error instanceof StreamError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** Runs `action`, which may refuse its input but must not fail in any other way. */
export function mayRefuse(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
  }
}

/** A name as the wire has them: 1 to 255 bytes of any value. */
export function nameArbitrary(maxLength = 255): fc.Arbitrary<string> {
  const unit = fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...Array.from("pc.ram/rom@etc-0123456789:")) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)) },
  );
  return fc.string({ unit, minLength: 1, maxLength });
}

export const u32Arbitrary = fc.nat({ max: 0xffff_ffff });

/** Offsets and lengths: multiples of a page, small ones and some beyond 4 GiB. */
export const pageMultipleArbitrary = fc
  .oneof(fc.nat({ max: 64 }), fc.nat({ max: 2 ** 40 }))
  .map((page) => page * 4096);

export interface CodecLaws<T> {
  arbitrary: fc.Arbitrary<T>;
  write: (writer: StreamWriter, value: T) => void;
  /** Also gets the value that was written, for codecs whose reader must know part of it. */
  read: (reader: StreamReader, value: T) => T;
  /** Bytes that follow in every stream; readers may look at them. */
  trailer?: Uint8Array;
}

/** The least buffer a codec may count on: a channel's is far larger. */
const DRIP_CAPACITY = 300;

/** Defines the tests: round trip, drip, truncation at every byte, and damage. */
export function codecLaws<T>(name: string, laws: CodecLaws<T>): void {
  const { arbitrary, write, read, trailer = new Uint8Array(0) } = laws;
  const encode = (value: T): Uint8Array => written((w) => (write(w, value), w.raw(trailer)));

  test(`${name}: reads what it wrote, and no byte more`, () => {
    fc.assert(
      fc.property(arbitrary, (value) => {
        const bytes = encode(value);
        const reader = wholeReader(bytes);
        expect(read(reader, value)).toEqual(value);
        expect(reader.available).toBe(trailer.length);
      }),
    );
  });

  test(`${name}: byte by byte is the same as at once`, () => {
    fc.assert(
      fc.property(arbitrary, (value) => {
        const bytes = encode(value);
        const reader = dripReader(bytes, DRIP_CAPACITY);
        expect(read(reader, value)).toEqual(value);
        expect(reader.offset).toBe(bytes.length - trailer.length);
      }),
    );
  });

  test(`${name}: cut at any byte it is TRUNCATED`, () => {
    fc.assert(
      fc.property(arbitrary, (value) => {
        const bytes = encode(value);
        for (let cut = 0; cut < bytes.length - trailer.length; cut++) {
          const code = refusalOf(() => read(wholeReader(bytes.slice(0, cut)), value));
          if (code !== "TRUNCATED") throw new Error(`cut at ${cut} of ${bytes.length}: ${code}`);
        }
      }),
      { numRuns: 30 },
    );
  });

  test(`${name}: damaged or random bytes are refused, or read as something`, () => {
    const damage = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), byte: fc.nat(255) });
    fc.assert(
      fc.property(arbitrary, fc.array(damage, { minLength: 1, maxLength: 4 }), (value, places) => {
        const bytes = encode(value);
        for (const { at, byte } of places) bytes[Math.floor(at * (bytes.length - 1))] = byte;
        mayRefuse(() => read(wholeReader(bytes), value));
      }),
      { numRuns: 300 },
    );
    fc.assert(
      fc.property(arbitrary, fc.uint8Array({ maxLength: 200 }), (value, bytes) => {
        mayRefuse(() => read(wholeReader(bytes), value));
      }),
      { numRuns: 300 },
    );
  });
}
