import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatInet, formatInet6, parseInet, parseInet6 } from "../../../syscalls/inet.ts";

/** 16 bytes of which whole groups are often zero, as in real addresses. */
const groups = fc.array(fc.oneof(fc.constant(0), fc.nat({ max: 0xffff })), {
  minLength: 8,
  maxLength: 8,
});
const inet6 = groups.map((all) => Uint8Array.from(all.flatMap((n) => [n >> 8, n & 0xff])));

describe("an IPv6 address", () => {
  test.each([
    ["::", "::"],
    ["::1", "::1"],
    ["0:0:0:0:0:0:0:1", "::1"],
    ["1::", "1::"],
    ["fe80::fc00:ff:fe00:1", "fe80::fc00:ff:fe00:1"],
    ["2001:0DB8::0001:0000", "2001:db8::1:0"],
    // A single zero group is not shortened; of two longest runs the first is.
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
    ["::ffff:192.168.1.20", "::ffff:c0a8:114"],
    ["64:ff9b::10.0.0.1", "64:ff9b::a00:1"],
    ["1:2:3:4:5:6:7.8.9.10", "1:2:3:4:5:6:708:90a"],
  ])("%s is written %s", (text, canonical) => {
    const bytes = parseInet6(text);
    expect(bytes).toHaveLength(16);
    expect(formatInet6(Uint8Array.from(bytes))).toBe(canonical);
  });

  test("has the bytes that its text says", () => {
    expect(parseInet6("1:203::a")).toEqual([0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
  });

  test("comes back from its text, which is the one a URL has too", () => {
    fc.assert(
      fc.property(inet6, (bytes) => {
        const text = formatInet6(bytes);
        expect(parseInet6(text)).toEqual([...bytes]);
        expect(new URL(`http://[${text}]/`).hostname).toBe(`[${text}]`);
      }),
      { numRuns: 1000 },
    );
  });
});

test("an IPv4 address comes back from its text", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4, maxLength: 4 }), (bytes) => {
      expect(parseInet(formatInet(bytes))).toEqual([...bytes]);
    }),
  );
  expect(formatInet(Uint8Array.of(127, 0, 0, 1))).toBe("127.0.0.1");
});
