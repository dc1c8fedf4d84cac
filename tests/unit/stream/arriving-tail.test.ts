/** The end of device state on a connection that stays open: seen as soon as it is there, no sooner. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ArrivingTail } from "../../../src/stream/arriving-tail.ts";
import { writeVmDescription } from "../../../src/stream/section.ts";
import { bytesOf, description, eof, unknownDevice } from "../../helpers/hand-made-stream.ts";
import { refusalErrorOf, refusalOf } from "./laws.ts";

const CPU = unknownDevice(4, "cpu", 1, 2, 3);
const DISK = unknownDevice(9, "disk", ...new Uint8Array(300));
const SECTIONS = bytesOf(CPU, DISK);
const WHOLE = bytesOf(CPU, DISK, eof, description("cpu", "disk"));

/** A tail to which pieces have come, one after the other. */
function tailOf(...pieces: readonly Uint8Array[]): ArrivingTail {
  const tail = new ArrivingTail(1000);
  for (const piece of pieces) tail.append(piece);
  return tail;
}

/** The piece that showed the end when they came one by one; -1 if none did. */
function seenAt(pieces: readonly Uint8Array[]): number {
  const tail = new ArrivingTail(0);
  return pieces.findIndex((piece) => {
    tail.append(piece);
    return tail.devices !== undefined;
  });
}

/** Bytes of a device that hold what looks like the end of the stream. */
function withEndInside(id: number, footerId: number, ...names: string[]): Uint8Array {
  const end = bytesOf((writer) => writer.u8(0x7e).u32(footerId), eof, description(...names));
  return bytesOf(unknownDevice(id, "disk", ...end));
}

describe("the end", () => {
  test("is seen with its last byte, and not before, when they come one by one", () => {
    const bytes = Array.from(WHOLE, (byte) => Uint8Array.of(byte));
    expect(seenAt(bytes)).toBe(WHOLE.length - 1);
  });

  test("is seen however the bytes are cut into pieces", () => {
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: WHOLE.length - 1 }), { maxLength: 8 });
    fc.assert(
      fc.property(cuts, (places) => {
        const ends = [...places.toSorted((a, b) => a - b), WHOLE.length];
        const pieces = ends.map((end, n) => WHOLE.subarray(ends[n - 1] ?? 0, end));
        expect(seenAt(pieces)).toBe(pieces.length - 1);
      }),
    );
  });

  test("gives the sections, and the description as it came", () => {
    const { devices } = tailOf(WHOLE);
    expect(devices?.sections).toEqual(SECTIONS);
    expect(devices?.vmDescription).toBe(
      '{"page_size":4096,"devices":[{"name":"cpu","instance_id":0,"version":1},' +
        '{"name":"disk","instance_id":0,"version":1}]}',
    );
  });

  test("is none when a byte more has come", () => {
    expect(tailOf(WHOLE, Uint8Array.of(0)).devices).toBeUndefined();
    expect(tailOf(new Uint8Array([...WHOLE, 4])).devices).toBeUndefined();
  });

  test("is waited for when the description is longer than all that came so far", () => {
    const devices = [{ name: "cpu", instance_id: 0 }];
    const json = JSON.stringify({ padding: "x".repeat(600_000), devices });
    const bytes = bytesOf(CPU, eof, (writer) => writeVmDescription(writer, json));
    const pieces = [bytes.subarray(0, 100), bytes.subarray(100, -1), bytes.subarray(-1)];
    expect(seenAt(pieces)).toBe(2);
  });

  test("stands behind much state as well", () => {
    const large = bytesOf(unknownDevice(1, "vga", ...new Uint8Array(60_000).fill(0x06)));
    const pieces = Array.from({ length: 20 }, (_, n) =>
      bytesOf(unknownDevice(100 + n, `vga${n}`, ...large)),
    );
    const names = Array.from({ length: 20 }, (_, n) => `vga${n}`);
    const tail = tailOf(...pieces, bytesOf(eof, description(...names)));
    expect(tail.devices?.sections).toEqual(new Uint8Array(Buffer.concat(pieces)));
  });
});

describe("an end within device state is none", () => {
  const last = bytesOf(unknownDevice(11, "net", 5), eof, description("cpu", "disk", "net"));
  /** Of the state of the disk up to where the end within it ends, and the rest of it. */
  const cut = (disk: Uint8Array): [Uint8Array, Uint8Array] => [
    disk.subarray(0, disk.length - 5),
    disk.subarray(disk.length - 5),
  ];

  test.each([
    ["that lists other devices", ["cpu", "net"]],
    ["that lists fewer", ["cpu"]],
    ["that lists more", ["cpu", "disk", "net"]],
    ["that lists them in another order", ["disk", "cpu"]],
    ["that lists none", []],
  ])("%s, also where a read ends with it", (_, names) => {
    const [head, rest] = cut(withEndInside(9, 9, ...names));
    expect(seenAt([bytesOf(CPU), head, rest, last])).toBe(3);
    const tail = tailOf(bytesOf(CPU), head);
    expect(tail.devices).toBeUndefined();
  });

  test("that follows the footer of no section", () => {
    const [head, rest] = cut(withEndInside(9, 77, "cpu", "disk"));
    expect(seenAt([bytesOf(CPU), head, rest, last])).toBe(3);
  });

  test("that is just right, when more comes in the same read", () => {
    const [head, rest] = cut(withEndInside(9, 9, "cpu", "disk"));
    expect(seenAt([bytesOf(CPU), new Uint8Array([...head, ...rest]), last])).toBe(2);
    const { devices } = tailOf(bytesOf(CPU), new Uint8Array([...head, ...rest, ...last]));
    expect(devices?.sections).toEqual(
      bytesOf(
        CPU,
        (w) => w.raw(head),
        (w) => w.raw(rest),
        unknownDevice(11, "net", 5),
      ),
    );
  });

  test("of which there are more than anybody needs", () => {
    const [head] = cut(withEndInside(9, 9, "cpu"));
    const many = new Uint8Array(Buffer.concat(Array.from({ length: 9 }, () => head)));
    const pieces = Array.from({ length: 9 }, (_, n) =>
      many.subarray(n * head.length, (n + 1) * head.length),
    );
    expect(refusalErrorOf(() => tailOf(...pieces)).message).toContain(
      "ended in more than 8 places",
    );
  });
});

describe("a source that closes", () => {
  test("has sent all of it, described or not", () => {
    expect(tailOf(WHOLE).close()).toEqual({
      sections: SECTIONS,
      vmDescription: expect.stringContaining('"disk"'),
    });
    expect(tailOf(bytesOf(CPU, DISK, eof)).close()).toEqual({
      sections: SECTIONS,
      vmDescription: undefined,
    });
  });

  test("anywhere else is refused", () => {
    const undescribed = SECTIONS.length + 1;
    for (let length = 1; length < WHOLE.length; length++) {
      if (length === undescribed) continue;
      const refusal = refusalOf(() => tailOf(WHOLE.subarray(0, length)).close());
      expect(refusal).toMatch(/^TRUNCATED|^BAD_FOOTER/);
    }
  });
});

test("what may be all without a description is told from what is not", () => {
  const maybe = Array.from({ length: WHOLE.length }, (_, length) => length).filter(
    (length) => tailOf(WHOLE.subarray(0, length)).mayBeWhole,
  );
  expect(maybe).toContain(SECTIONS.length + 1);
  expect(maybe).not.toContain(SECTIONS.length);
  expect(tailOf().mayBeWhole).toBe(false);
});
