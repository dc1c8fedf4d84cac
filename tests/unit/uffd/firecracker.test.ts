/** The list of regions in Firecracker's handover: its generations, and what no VMM should send. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FIRECRACKER } from "../../../src/guests/uffd/firecracker.ts";
import { HandoverError } from "../../../src/guests/uffd/handover.ts";

const MIB = 2 ** 20;

/** One mapping as Firecracker writes it, with other values or more keys. */
function mapping(changes: object = {}): object {
  return { base_host_virt_addr: 0x7f00_0000_0000, size: 128 * MIB, offset: 0, ...changes };
}

function regions(...mappings: unknown[]) {
  return FIRECRACKER.parse(JSON.stringify(mappings))?.regions;
}

/** The code of what is thrown. */
function refusal(...mappings: unknown[]): [string, string] {
  try {
    regions(...mappings);
  } catch (error) {
    if (error instanceof HandoverError) return [error.code, error.message];
    throw error;
  }
  throw new Error("it was taken");
}

const REGION = { address: 0x7f00_0000_0000, length: 128 * MIB, offset: 0, pageSize: 4096 };

describe("the generations", () => {
  test("1.1 to 1.6 say no page size", () => {
    expect(regions(mapping())).toEqual([REGION]);
  });
  test("1.7 to 1.11 call it page_size_kib, and mean bytes", () => {
    const huge = { ...REGION, pageSize: 2 * MIB };
    expect(regions(mapping({ page_size_kib: 2 * MIB }))).toEqual([huge]);
  });
  test("1.12 and later have page_size, and for a while both", () => {
    const both = mapping({ page_size: 2 * MIB, page_size_kib: 2 * MIB });
    expect(regions(both)).toEqual([{ ...REGION, pageSize: 2 * MIB }]);
    expect(regions(mapping({ page_size: 4096 }))).toEqual([REGION]);
    expect(regions(mapping({ page_size: 4096, page_size_kib: 2 * MIB }))).toEqual([REGION]);
  });
  test("keys of another generation say nothing", () => {
    expect(regions(mapping({ later: { than: "this" } }))).toEqual([REGION]);
  });
});

test("regions are in the order of their addresses", () => {
  const high = mapping({ base_host_virt_addr: 0x7f80_0000_0000, offset: 128 * MIB });
  const found = regions(high, mapping());
  expect(found?.map(({ offset }) => offset)).toEqual([0, 128 * MIB]);
});

test("a message that may be incomplete is none yet", () => {
  const whole = JSON.stringify([mapping(), mapping({ base_host_virt_addr: 0, offset: 256 * MIB })]);
  for (let end = 0; end < whole.length; end++) {
    expect(FIRECRACKER.parse(whole.slice(0, end))).toBeUndefined();
  }
  expect(FIRECRACKER.parse(`\n${whole}\n`)?.regions).toHaveLength(2);
});

test.each([
  ["BAD_HANDOVER", mapping({ size: "128" }), /size/],
  ["BAD_HANDOVER", mapping({ size: 1.5 }), /size/],
  ["BAD_HANDOVER", mapping({ offset: -4096 }), /offset/],
  ["BAD_HANDOVER", mapping({ size: 2 ** 60 }), /size/],
  ["BAD_HANDOVER", { base_host_virt_addr: 0, size: 4096 }, /offset/],
  ["BAD_HANDOVER", 7, /expected object/],
  ["PAGE_SIZE", mapping({ page_size: 0 }), /pages of 0 bytes/],
  ["PAGE_SIZE", mapping({ page_size_kib: 4 }), /pages of 4 bytes/],
  ["PAGE_SIZE", mapping({ page_size: 12_288 }), /pages of 12288 bytes/],
  ["PAGE_SIZE", mapping({ page_size: 2 ** 31 }), /pages of 2147483648 bytes/],
  ["EMPTY_REGION", mapping({ size: 0 }), /no bytes/],
  ["UNALIGNED_REGION", mapping({ size: 4097 }), /its length, 4097/],
  ["UNALIGNED_REGION", mapping({ offset: 512 }), /its offset, 512/],
  ["UNALIGNED_REGION", mapping({ page_size: 2 * MIB, size: 3 * MIB }), /its length, 3145728/],
  ["UNALIGNED_REGION", mapping({ base_host_virt_addr: 1 }), /its address, 1/],
  ["BAD_REGION", mapping({ base_host_virt_addr: 2 ** 53 - 4096 }), /beyond every address space/],
])("%s: %j", (code, one, says) => {
  const [found, message] = refusal(one);
  expect(found).toBe(code);
  expect(message).toMatch(says);
});

test("no region, and regions that overlap", () => {
  expect(refusal()).toEqual(["NO_REGIONS", "The VMM hands over no memory: its list is empty"]);
  const [code, where] = refusal(mapping(), mapping({ offset: 128 * MIB }));
  expect([code, where]).toEqual(["OVERLAPPING_REGIONS", expect.stringContaining("address space")]);
  const elsewhere = mapping({ base_host_virt_addr: 0, offset: 64 * MIB });
  expect(refusal(mapping(), elsewhere)[1]).toContain("memory that was saved");
});

test("what is no list is refused before all of it is there", () => {
  for (const text of ["{", "GET / HTTP/1.1", '"[', "QEVM"]) {
    expect(() => FIRECRACKER.parse(text)).toThrow("no list of regions");
  }
});

test("whatever a VMM says is a handover, the beginning of one, or refused by name", () => {
  const number = fc.oneof(
    fc.nat(),
    fc.integer(),
    fc.double(),
    fc.constantFrom(4096, 2 ** 21, 2 ** 53),
  );
  const region = fc.dictionary(
    fc.constantFrom("base_host_virt_addr", "size", "offset", "page_size", "page_size_kib", "other"),
    fc.oneof(number, fc.json()),
  );
  const said = fc.oneof(
    fc.string(),
    fc.json(),
    fc.array(region).map((list) => JSON.stringify(list)),
    // A good one with a piece of it replaced.
    fc.tuple(fc.nat({ max: 200 }), fc.nat({ max: 20 }), fc.string()).map(([at, length, by]) => {
      const good = JSON.stringify([{ base_host_virt_addr: 4096, size: 8192, offset: 0 }]);
      return good.slice(0, at) + by + good.slice(at + length);
    }),
  );
  fc.assert(
    fc.property(said, (text) => {
      try {
        for (const { address, length, pageSize } of FIRECRACKER.parse(text)?.regions ?? []) {
          expect(address % pageSize).toBe(0);
          expect(length).toBeGreaterThan(0);
        }
      } catch (error) {
        if (!(error instanceof HandoverError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
});
