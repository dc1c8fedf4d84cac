import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StreamError } from "../../../src/util/errors.ts";
import {
  BLOCKS,
  ModelSink,
  RamLoaderBench,
  ScatteredSink,
} from "../../helpers/ram-loader-bench.ts";
import type { Delivery } from "../../helpers/ram-loader-bench.ts";
import { RamRecords } from "../../helpers/ram-records.ts";

const PAGE = 4096;
/** Longest run that a sink may be given. */
const RUN_PAGES_MAX = 64;

/** A page whose bytes all differ from those of others: the first word says which, the rest too. */
function pageOf(fill: number): Uint8Array {
  return new Uint8Array(PAGE).map((_, i) => (fill + i * (fill | 1)) & 0xff);
}

interface Record {
  kind: "page" | "zero" | "compressed" | "xbzrle" | "run" | "packed run" | "zero run";
  block: number;
  page: number;
  fill: number;
  count: number;
  named: boolean;
}

/** Stretches of consecutive pages of one kind, as sources send them. */
const stretch: fc.Arbitrary<Record> = fc.record({
  kind: fc.constantFrom(
    ...(["page", "page", "zero", "compressed", "xbzrle", "run", "packed run", "zero run"] as const),
  ),
  block: fc.nat({ max: 1 }),
  page: fc.nat({ max: 29 }),
  fill: fc.integer({ min: 1, max: 255 }),
  count: fc.integer({ min: 1, max: 12 }),
  named: fc.boolean(),
});

const chunks = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 5 }),
  fc.constant([PAGE + 8]),
  fc.constant([]),
);

/** The records of the stretches, and what a plain model says that they deliver. */
function compose(stretches: readonly Record[]): {
  bytes: Uint8Array;
  deliveries: Delivery[];
  memory: Map<string, Uint8Array>;
} {
  const records = new RamRecords();
  const deliveries: Delivery[] = [];
  const memory = new Map<string, Uint8Array>();
  for (const { kind, block: index, page: first, fill, count, named } of stretches) {
    const { name } = BLOCKS[index] ?? BLOCKS[0]!;
    if (kind.endsWith("run")) {
      const pages = Math.min(30, first + count) - first;
      const zeros = kind === "zero run";
      const all = Array.from({ length: pages }, (_, i) => {
        return zeros ? new Uint8Array(PAGE) : pageOf(fill + first + i);
      });
      if (zeros) records.zeroRun(name, first * PAGE, pages, named);
      else records.run(name, first * PAGE, Buffer.concat(all), kind === "packed run", named);
      for (const [i, data] of all.entries()) {
        memory.set(`${name}:${(first + i) * PAGE}`, data);
        deliveries.push([name, first + i, data[0] ?? -1]);
      }
      continue;
    }
    for (let page = first; page < Math.min(30, first + count); page++) {
      const [offset, key] = [page * PAGE, `${name}:${page * PAGE}`];
      const data = kind === "zero" ? new Uint8Array(PAGE) : pageOf(fill + page);
      const old = memory.get(key) ?? new Uint8Array(PAGE);
      if (kind === "zero") records.zero(name, offset, named);
      else if (kind === "page") records.page(name, offset, data, named);
      else if (kind === "compressed") records.compressed(name, offset, data, named);
      else {
        // Near enough to the old page that XBZRLE is worth it.
        const changed = old.slice();
        changed.set(data.subarray(0, 100), 50);
        data.set(changed);
        records.xbzrle(name, offset, old, data, named);
      }
      memory.set(key, data);
      deliveries.push([name, page, data[0] ?? -1]);
    }
  }
  return { bytes: records.endOfSection().bytes, deliveries, memory };
}

/** The code of the StreamError that a body is refused with. */
function refusalOf(records: RamRecords, bench = new RamLoaderBench()): string {
  try {
    bench.feed(records.bytes);
  } catch (error) {
    if (error instanceof StreamError) return error.code;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe.each([
  ["joined", ModelSink],
  ["where they have come", ScatteredSink],
] as const)("the pages of a stream, %s,", (_way, Sink) => {
  test("are delivered once each, in order and unchanged, however they arrive", () => {
    fc.assert(
      fc.property(fc.array(stretch, { maxLength: 12 }), chunks, (stretches, sizes) => {
        const { bytes, deliveries, memory } = compose(stretches);
        const bench = new RamLoaderBench(Sink);
        expect(bench.feed(bytes, sizes)).toBe("end of section");
        expect(bench.sink.deliveries).toEqual(deliveries);
        for (const [key, data] of memory) {
          expect(Buffer.compare(bench.sink.memory.get(key) ?? new Uint8Array(), data)).toBe(0);
        }
        expect(bench.sink.memory.size).toBe(memory.size);
        expect(bench.loader.normal + bench.loader.zero).toBe(deliveries.length);
        expect(bench.reader.offset).toBe(bytes.length);
      }),
      { numRuns: 150 },
    );
  });

  test("are joined to long runs where they are consecutive and of one kind", () => {
    const records = new RamRecords();
    for (let page = 0; page < 4; page++) records.page("pc.ram", page * PAGE, pageOf(page + 1));
    for (let page = 4; page < 9; page++) records.zero("pc.ram", page * PAGE);
    for (let page = 9; page < 11; page++) records.page("pc.ram", page * PAGE, pageOf(9), true);
    records.page("vga.vram", 11 * PAGE, pageOf(3)).page("vga.vram", 13 * PAGE, pageOf(4));
    const bench = new RamLoaderBench(Sink);
    bench.feed(records.endOfSection().bytes);
    expect(bench.sink.runs).toEqual([4, 5, 2, 1, 1]);
    expect([bench.loader.normal, bench.loader.zero]).toEqual([8, 5]);
  });
});

describe("the pages of a stream", () => {
  test("go to the sink as they have come where they are sent as runs", () => {
    const data = Buffer.concat([1, 2, 3].map(pageOf));
    const records = new RamRecords().run("pc.ram", 4 * PAGE, data).zeroRun("pc.ram", 7 * PAGE, 90);
    const bench = new RamLoaderBench();
    // Two pages and a half of the run, then the rest of it.
    bench.feed(records.run("pc.ram", 0, data, true).endOfSection().bytes, [15 + 2.5 * PAGE, 1e6]);
    expect(bench.sink.runs).toEqual([2, 1, 90, 3]);
    expect([bench.loader.normal, bench.loader.zero]).toEqual([6, 90]);
  });

  test("are joined to runs of a limited length", () => {
    const records = new RamRecords();
    for (let page = 0; page < 100; page++) records.zero("pc.ram", page * PAGE);
    const bench = new RamLoaderBench();
    bench.feed(records.endOfSection().bytes);
    expect(bench.sink.runs).toEqual([RUN_PAGES_MAX, 100 - RUN_PAGES_MAX]);
  });

  test("may be sent again, and backwards", () => {
    const records = new RamRecords();
    for (const page of [3, 2, 1, 2, 2]) records.page("pc.ram", page * PAGE, pageOf(page));
    const bench = new RamLoaderBench();
    bench.feed(records.endOfSection().bytes);
    expect(bench.sink.deliveries.map(([, page]) => page)).toEqual([3, 2, 1, 2, 2]);
  });

  test("are with the sink as soon as they are whole, although more of the section comes", () => {
    const bench = new RamLoaderBench();
    const { bytes } = new RamRecords().page("pc.ram", 0, pageOf(1)).page("pc.ram", PAGE, pageOf(2));
    expect(bench.feed(bytes.subarray(0, bytes.length - 1))).toBe("needs more");
    expect(bench.sink.deliveries).toHaveLength(1);
    expect(bench.feed(bytes.subarray(bytes.length - 1))).toBe("needs more");
    expect(bench.sink.deliveries).toHaveLength(2);
  });

  test("of the next section go on with the block of the last one", () => {
    const bench = new RamLoaderBench();
    const records = new RamRecords().page("vga.vram", 0, pageOf(1)).endOfSection();
    const first = records.bytes.length;
    const { bytes } = records.page("vga.vram", PAGE, pageOf(2)).endOfSection();
    expect(bench.feed(bytes.subarray(0, first))).toBe("end of section");
    expect(bench.feed(bytes.subarray(first))).toBe("end of section");
    expect(bench.sink.deliveries.at(-1)).toEqual(["vga.vram", 1, pageOf(2)[0] ?? -1]);
  });
});

test("at a flush of multifd all that came before it is with the sink", () => {
  const bench = new RamLoaderBench();
  const records = new RamRecords().page("pc.ram", 0, pageOf(1)).raw(0x200);
  expect(bench.feed(records.page("pc.ram", PAGE, pageOf(2)).bytes)).toBe("multifd flush");
  expect(bench.sink.deliveries.map(([, page]) => page)).toEqual([0]);
  expect(bench.feed(new RamRecords().endOfSection().bytes)).toBe("end of section");
  expect(bench.sink.deliveries.map(([, page]) => page)).toEqual([0, 1]);
});

describe("a stream is refused", () => {
  const records = () => new RamRecords();

  test("for a block that is not there, or was never named", () => {
    expect(refusalOf(records().zero("pc.rom", 0))).toBe("UNKNOWN_BLOCK");
    const bench = new RamLoaderBench();
    const { bytes } = records().zero("pc.ram", 0).zero("pc.ram", PAGE);
    // From the second record on: it says CONTINUE, and nothing came before.
    const second = bytes.subarray(8 + 7 + 1);
    expect(() => bench.feed(second)).toThrow("The first page of a channel does not name its block");
  });

  test("for a page behind the end of its block", () => {
    expect(refusalOf(records().page("vga.vram", 30 * PAGE, pageOf(1)))).toBe("BAD_OFFSET");
    expect(refusalOf(records().zero("vga.vram", 2 ** 40))).toBe("BAD_OFFSET");
    expect(new RamLoaderBench().feed(records().zero("vga.vram", 29 * PAGE).bytes)).toBe(
      "needs more",
    );
  });

  test("for a page that is filled with anything but zeros", () => {
    expect(refusalOf(records().zero("pc.ram", 0, false, 7))).toBe("BAD_VALUE");
  });

  test("for what belongs to other capabilities", () => {
    expect(refusalOf(records().raw(0x80))).toBe("BAD_FLAGS");
  });

  test("is refused where a run leaves its block, and places nothing of it", () => {
    const bench = new RamLoaderBench();
    const three = Buffer.concat([1, 2, 3].map(pageOf));
    for (const runs of [
      new RamRecords().run("vga.vram", 28 * PAGE, three),
      new RamRecords().run("vga.vram", 28 * PAGE, three, true),
      new RamRecords().zeroRun("vga.vram", 0, 31),
    ]) {
      expect(refusalOf(runs, bench)).toBe("BAD_OFFSET");
      bench.reader.pos = bench.reader.end;
    }
    expect(bench.sink.deliveries).toEqual([]);
  });

  test("is refused where runs were not chosen, or only those that are not compressed", () => {
    const bench = new RamLoaderBench();
    bench.loader.packedRuns = false;
    expect(refusalOf(new RamRecords().run("pc.ram", 0, pageOf(1), true), bench)).toBe("UNEXPECTED");
    const plain = new RamLoaderBench();
    plain.loader.runs = false;
    for (const packed of [true, false]) {
      const run = new RamRecords().run("pc.ram", 0, pageOf(1), packed);
      expect(refusalOf(run, plain)).toBe("BAD_FLAGS");
      plain.reader.pos = plain.reader.end;
    }
  });

  test("for an XBZRLE page when pages are placed for good", () => {
    const bench = new RamLoaderBench();
    const { pages, zeros } = bench.sink;
    bench.loader.sink = { pages: pages.bind(bench.sink), zeros: zeros.bind(bench.sink) };
    const { bytes } = records().xbzrle("pc.ram", 0, new Uint8Array(PAGE), pageOf(1).fill(0, 9));
    expect(() => bench.feed(bytes)).toThrow("an XBZRLE page after the switchover");
  });
});

test("the list of RAM blocks stops the loader, with the total", () => {
  const bench = new RamLoaderBench();
  const { bytes } = new RamRecords().memorySize(130 * PAGE);
  expect(bench.feed(bytes)).toBe("memory size");
  expect(bench.loader.memoryTotal).toBe(130 * PAGE);
});
