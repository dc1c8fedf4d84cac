/** Descriptions of device state: names in their order, and the lengths that their fields add up to. */
import { expect, test } from "bun:test";
import { readDescribedDevices } from "../../../src/stream/vm-description.ts";

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
