import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  checkPackageHead,
  PACKAGE_DEVICES_START,
  scanPackageTail,
  writePackage,
} from "../../../src/stream/package.ts";
import { writeFooter, writeFullSection } from "../../../src/stream/section.ts";
import { hexBytes, mayRefuse, refusalOf, u32Arbitrary, written } from "./laws.ts";

const LISTEN = "08 0004 0000";
const RUN = "08 0005 0000";

/** Device state with any body, whose last bytes may be those of a PING, and any section number. */
const deviceArbitrary = fc
  .record({
    sectionId: fc.oneof(fc.constant(0x0800_0200), u32Arbitrary),
    body: fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.constant(hexBytes("08 0002 0004 00000042")),
      fc.constant(hexBytes("08 0002 00")),
    ),
  })
  .map(({ sectionId, body }) =>
    written((writer) => {
      writeFullSection(writer, { sectionId, idstr: "cpu", instanceId: 0, versionId: 1 });
      writer.raw(body);
      writeFooter(writer, sectionId);
    }),
  );

describe("the package", () => {
  test("is scanned to where its device state ends, and its PINGs", () => {
    fc.assert(
      fc.property(
        fc.array(deviceArbitrary, { maxLength: 4 }),
        fc.array(u32Arbitrary, { maxLength: 16 }),
        (devices, pings) => {
          const bytes = written((writer) => {
            writePackage(writer, (w) => devices.forEach((device) => w.raw(device)), pings);
          });
          checkPackageHead(bytes);
          const size = devices.reduce((sum, device) => sum + device.length, 0);
          expect(scanPackageTail(bytes)).toEqual({
            pings,
            devicesEnd: PACKAGE_DEVICES_START + size,
          });
        },
      ),
    );
  });

  test("in bytes", () => {
    const device = "04 00000003 01 61 00000000 00000001 ff 7e 00000003";
    const bytes = hexBytes(LISTEN, device, "08 0002 0004 00000003", "08 0002 0004 00000042", RUN);
    expect(written((w) => writePackage(w, (d) => d.raw(hexBytes(device)), [3, 0x42]))).toEqual(
      bytes,
    );
    expect(scanPackageTail(bytes)).toEqual({ pings: [3, 0x42], devicesEnd: 26 });
  });

  const bad: [name: string, bytes: string][] = [
    ["nothing", ""],
    ["RUN alone", RUN],
    ["no RUN", `${LISTEN} 08 0002 0004 00000003`],
    ["a RUN with a payload", `${LISTEN} 08 0005 0001 00`],
    ["bytes behind RUN", `${LISTEN} ${RUN} 00`],
  ];
  for (const [name, bytes] of bad) {
    test(`of ${name} is refused`, () => {
      expect(refusalOf(() => scanPackageTail(hexBytes(bytes)))).toBe("BAD_PACKAGE");
    });
  }

  test("that does not begin with LISTEN is refused", () => {
    for (const bytes of ["", "08 0004", "08 0005 0000", "04 00000003"]) {
      expect(refusalOf(() => checkPackageHead(hexBytes(bytes)))).toBe("BAD_PACKAGE");
    }
  });

  test("with more than 16 PINGs is refused", () => {
    const pings = Array.from({ length: 17 }, (_, i) => i);
    const bytes = written((writer) => writePackage(writer, () => undefined, pings));
    expect(refusalOf(() => scanPackageTail(bytes))).toBe("BAD_PACKAGE");
  });

  test("never takes a PING from before its device state", () => {
    // A PING that begins inside LISTEN's own bytes cannot be one.
    const bytes = hexBytes("08 0002 0004 0000", RUN);
    mayRefuse(() => expect(scanPackageTail(bytes)).toEqual({ pings: [], devicesEnd: 7 }));
  });

  test("of random bytes is refused, or scanned within them", () => {
    const piece = fc.constantFrom("08", "0002", "0004", "0005", "0000", "7e", "00000042", RUN);
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const bytes = hexBytes(...pieces);
        mayRefuse(() => {
          const { devicesEnd } = scanPackageTail(bytes);
          expect(devicesEnd).toBeGreaterThanOrEqual(PACKAGE_DEVICES_START);
          expect(devicesEnd).toBeLessThanOrEqual(bytes.length - 5);
        });
      }),
      { numRuns: 1000 },
    );
  });
});
