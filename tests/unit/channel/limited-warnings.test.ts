import { expect, test } from "bun:test";
import { LimitedWarnings } from "../../../src/channel/limited-warnings.ts";

test("twenty a minute are told, and how many others there were in the next one", () => {
  const told: string[] = [];
  let now = 5_000_000;
  const warnings = new LimitedWarnings(
    (message) => told.push(message),
    () => now,
  );
  for (let i = 0; i < 1000; i++) warnings.say(`number ${i}`);
  expect(told).toHaveLength(20);
  expect([told[0], told[19]]).toEqual([
    "number 0",
    "number 19 (more within a minute are only counted)",
  ]);
  now += 59_999;
  warnings.say("still the same minute");
  expect(told).toHaveLength(20);
  now += 1;
  warnings.say("another minute");
  expect(told.slice(20)).toEqual(["981 more such warnings were not shown", "another minute"]);
  now += 3_600_000;
  warnings.say("much later");
  expect(told.slice(22)).toEqual(["much later"]);
});
