/** Descriptions of device state: names in their order, and the lengths that their fields add up to. */
import { describe, expect, test } from "bun:test";
import {
  DESCRIPTION_DEPTH_MAX,
  DESCRIPTION_VALUES_MAX,
  readDescribedDevices,
} from "../../../src/stream/vm-description.ts";

test("fields, arrays and subsections add up to a body", () => {
  const json = JSON.stringify({
    page_size: 4096,
    devices: [
      { name: "timer", instance_id: 0, version: 2, fields: [{ name: "a", size: 8 }] },
      {
        name: "cpu",
        instance_id: 3,
        fields: [{ name: "regs", size: 8, array_len: 16 }],
        subsections: [
          {
            vmsd_name: "cpu/x",
            version: 1,
            fields: [{ size: 4 }],
            subsections: [{ vmsd_name: "cpu/x/y" }],
          },
        ],
      },
      { name: "old", instance_id: 0 },
    ],
  });
  expect(readDescribedDevices(json)).toEqual([
    { idstr: "timer", instanceId: 0, bytes: 8 },
    { idstr: "cpu", instanceId: 3, bytes: 128 + (6 + 5 + 4) + (6 + 7) },
    { idstr: "old", instanceId: 0, bytes: undefined },
  ]);
});

test("what is no description is none", () => {
  for (const json of ["", "{", "[]", '{"devices": 1}', '{"devices": [{"name": "x"}]}']) {
    expect(readDescribedDevices(json)).toBeUndefined();
  }
});

describe("a description that is made to hurt", () => {
  /** Subsections within each other, four levels each. */
  const nested = (levels: number): string => {
    const [open, close] = ['{"vmsd_name":"x","subsections":[', "]}"];
    const inner = open.repeat(levels) + close.repeat(levels);
    return `{"devices":[{"name":"a","instance_id":0,"fields":[],"subsections":[${inner}]}]}`;
  };

  test("is read as deep as any is, and not deeper", () => {
    expect(readDescribedDevices(nested(20))?.[0]?.bytes).toBe(20 * 7);
    for (const levels of [DESCRIPTION_DEPTH_MAX, 400_000]) {
      expect(readDescribedDevices(nested(levels))).toBeUndefined();
    }
  });

  test("is read to as many values as any has, and not more", () => {
    const fields = (count: number): string => {
      const list = '{"size":1},'.repeat(count);
      return `{"devices":[{"name":"a","instance_id":0,"fields":[${list}{"size":1}]}]}`;
    };
    expect(readDescribedDevices(fields(1000))?.[0]?.bytes).toBe(1001);
    expect(readDescribedDevices(fields(DESCRIPTION_VALUES_MAX / 2 + 1))).toBeUndefined();
  });

  test("has brackets in its names, which are no nesting", () => {
    const name = `${"[{".repeat(100)}\\"${"[,".repeat(100)}`;
    const json = `{"devices":[{"name":"${name}","instance_id":0}]}`;
    expect(readDescribedDevices(json)?.[0]?.idstr).toHaveLength(401);
  });
});
