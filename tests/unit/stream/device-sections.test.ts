/** Device state split into sections whose bodies nobody knows: what is proven is always true. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CANDIDATES_MAX } from "../../../src/stream/device-candidates.ts";
import { LookLimit, LOOKS_MAX, splitDeviceSections } from "../../../src/stream/device-sections.ts";
import type { DeviceStretch } from "../../../src/stream/device-sections.ts";
import { writeFooter, writeFullSection } from "../../../src/stream/section.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";

interface Device {
  sectionId: number;
  idstr: string;
  instanceId: number;
  versionId: number;
  body: Uint8Array;
}

const FOOTER_BYTES = 5;
/** Of a header, beside its name. */
const HEADER_BYTES = 14;

function written(devices: readonly Device[]): { bytes: Uint8Array; truth: DeviceStretch[] } {
  const writer = new StreamWriter();
  const truth: DeviceStretch[] = [];
  for (const { body, ...section } of devices) {
    const at = writer.bytes.length;
    writeFullSection(writer, section);
    writer.raw(body);
    writeFooter(writer, section.sectionId);
    truth.push({ section, at, end: writer.bytes.length, proven: true });
  }
  return { bytes: writer.bytes.slice(), truth };
}

function device(
  sectionId: number,
  idstr: string,
  ...body: readonly (number | Uint8Array)[]
): Device {
  const bytes = body.flatMap((part) => (typeof part === "number" ? [part] : [...part]));
  return { sectionId, idstr, instanceId: 0, versionId: 1, body: new Uint8Array(bytes) };
}

/** A footer and the header of another section, as a body may hold them. */
function boundary(footerId: number, sectionId: number, idstr: string): Uint8Array {
  const writer = new StreamWriter();
  writeFooter(writer, footerId);
  writeFullSection(writer, { sectionId, idstr, instanceId: 0, versionId: 1 });
  return writer.bytes.slice();
}

const idstr = fc.stringMatching(/^[a-z0-9:/.]{1,12}$/);
/** Bodies of bytes that look like what stands between sections. */
const piece = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc
    .tuple(fc.nat(8), fc.nat(8), idstr)
    .map(([footerId, sectionId, of]) => boundary(footerId, sectionId, of)),
);
const body = fc.array(piece, { maxLength: 4 }).map((parts) => new Uint8Array(Buffer.concat(parts)));
const devices = fc
  .uniqueArray(
    fc.record({
      sectionId: fc.nat(8),
      idstr,
      instanceId: fc.nat(2),
      versionId: fc.nat(20),
      body,
    }),
    { minLength: 1, maxLength: 8, selector: ({ sectionId }) => sectionId },
  )
  .filter(
    (list) => new Set(list.map((one) => `${one.instanceId} ${one.idstr}`)).size === list.length,
  );

function lineUp(stretches: readonly DeviceStretch[], length: number): void {
  let at = 0;
  for (const stretch of stretches) {
    expect(stretch.at).toBe(at);
    at = stretch.end;
  }
  expect(at).toBe(length);
}

describe("device state is split", () => {
  test("whatever its bodies hold: all of it is told, and what is proven is true", () => {
    fc.assert(
      fc.property(devices, (list) => {
        const { bytes, truth } = written(list);
        const stretches = splitDeviceSections(bytes);
        lineUp(stretches, bytes.length);
        for (const stretch of stretches) {
          if (stretch.proven) expect(truth).toContainEqual(stretch);
          else expect(truth.map(({ at }) => at)).toContain(stretch.at);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("by the lengths of a description, whatever its bodies hold", () => {
    fc.assert(
      fc.property(devices, (list) => {
        const { bytes, truth } = written(list);
        const described = list.map((one) => ({ ...one, bytes: one.body.length }));
        expect(splitDeviceSections(bytes, described)).toEqual(truth);
      }),
      { numRuns: 1000 },
    );
  });

  test("at any byte where it is cut off: what is before is proven, the rest is not", () => {
    const list = [device(1, "timer", 1, 2), device(7, "cpu", 3), device(9, "apic", 4, 5)];
    const { bytes, truth } = written(list);
    for (let length = 1; length < bytes.length; length++) {
      const stretches = splitDeviceSections(bytes.subarray(0, length));
      lineUp(stretches, length);
      // A footer proves something together with the header behind it, or with the end.
      const whole = truth.filter(({ end }, index) => {
        const nextHeader = truth[index + 1]?.section?.idstr.length ?? 0;
        return end === length || end + HEADER_BYTES + nextHeader <= length;
      });
      expect(stretches.filter(({ proven }) => proven)).toEqual(whole);
    }
  });

  test("around a byte that is damaged", () => {
    const list = [1, 2, 3, 4, 5].map((id) => device(id, `device-${id}`, id, id, id));
    const { bytes, truth } = written(list);
    const footerAt = (truth[2]?.end ?? 0) - FOOTER_BYTES;
    const seen = (at: number): (string | undefined)[] => {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 0x40;
      const stretches = splitDeviceSections(damaged);
      lineUp(stretches, bytes.length);
      return stretches.map(({ section, proven }) => `${proven ? "" : "?"}${section?.idstr}`);
    };
    const known = ["device-1", "device-2"];
    expect(seen(footerAt + 4)).toEqual([...known, "?device-3", "device-4", "device-5"]);
    expect(seen(footerAt)).toEqual([...known, "?device-3", "device-5"]);
    expect(seen(0)).toEqual(["?undefined", "device-2", "device-3", "device-4", "device-5"]);
  });
});

describe("a body that looks like two sections", () => {
  const around = (fake: Uint8Array): ReturnType<typeof written> =>
    written([device(1, "timer"), device(2, "net", fake), device(8, "cpu"), device(3, "end")]);

  test("is told from them where the false one has a name that is taken", () => {
    const { bytes, truth } = around(boundary(2, 8, "timer"));
    expect(splitDeviceSections(bytes)).toEqual(truth);
  });

  test("is not proven where nothing tells, and does not hide what is around it", () => {
    const { bytes, truth } = around(boundary(2, 8, "fake"));
    const [timer, net, cpu, end] = truth;
    const doubtful = { ...net, end: cpu?.end, proven: false };
    expect(splitDeviceSections(bytes) as unknown[]).toEqual([timer, doubtful, end]);
    const described = truth.map(({ section }) => ({
      ...{ idstr: section?.idstr ?? "", instanceId: 0, bytes: undefined },
    }));
    expect(splitDeviceSections(bytes, described)).toEqual(truth);
  });
});

describe("state that is made to take long", () => {
  /** Sections 1 and 2 by turns, each of which can end at every footer of its own that follows. */
  const hostile = (sections: number): Uint8Array => {
    const parts = Array.from({ length: sections }, (_, i) => {
      return boundary(1 + (i % 2), 2 - (i % 2), `d${i}`);
    });
    return new Uint8Array(
      Buffer.concat([
        written([device(1, "first")]).bytes.slice(0, -5),
        ...parts,
        written([]).bytes,
        Uint8Array.of(0x7e, 0, 0, 0, 2 - ((sections - 1) % 2)),
      ]),
    );
  };

  test("is looked at a few times, however much of it there is", () => {
    for (const sections of [1000, 10_000, 60_000]) {
      const limit = new LookLimit();
      const stretches = splitDeviceSections(hostile(sections), undefined, limit);
      expect(stretches.reduce((sum, { at, end }) => sum + end - at, 0)).toBeGreaterThan(sections);
      expect(LOOKS_MAX - limit.left).toBeLessThanOrEqual(4 * (sections + 1));
    }
  });

  test("is one stretch of which nothing is proven where it has too many sections", () => {
    const bytes = hostile(CANDIDATES_MAX + 1);
    const limit = new LookLimit();
    const whole = [{ section: undefined, at: 0, end: bytes.length, proven: false }];
    expect(splitDeviceSections(bytes, undefined, limit)).toEqual(whole);
    expect(LOOKS_MAX - limit.left).toBe(0);
    expect(splitDeviceSections(hostile(100), undefined, new LookLimit(50))).toEqual([
      { section: undefined, at: 0, end: hostile(100).length, proven: false },
    ]);
  });
});

test("nothing is split into nothing", () => {
  expect(splitDeviceSections(new Uint8Array(0))).toEqual([]);
});
