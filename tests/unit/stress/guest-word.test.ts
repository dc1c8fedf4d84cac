import { describe, expect, test } from "bun:test";
import { parseStressGuest, STRESS_KEYS } from "../../../src/guests/stress/guest-word.ts";
import { STRESS_DEFAULTS } from "../../../src/guests/stress/parameters.ts";
import { UsageError } from "../../../src/util/errors.ts";

function problem(word: string): string {
  try {
    parseStressGuest(word);
  } catch (thrown) {
    if (thrown instanceof UsageError && thrown.code === "BAD_GUEST") {
      return `${thrown.message} (${thrown.hint})`;
    }
    throw thrown;
  }
  return "none";
}

test("alone it has the defaults", () => {
  expect(parseStressGuest("stress")).toEqual(STRESS_DEFAULTS);
});

test("takes every key", () => {
  const word =
    "stress:size=4GiB,workers=4,blocks=2,page-size=4K,rate=1Gbit/s,hot=5%,hot-share=0.8," +
    "zero=0.5,discard=1%,seed=99,duration=1.5s";
  expect(parseStressGuest(word)).toEqual({
    size: 2 ** 32,
    workers: 4,
    blocks: 2,
    pageSize: 4096,
    rate: 125_000_000,
    hotFraction: 0.05,
    hotShare: 0.8,
    zeroFraction: 0.5,
    discardRate: 0.01,
    seed: 99,
    durationMs: 1500,
  });
  expect(STRESS_KEYS.every(({ key }) => word.includes(`${key}=`))).toBe(true);
});

test("pages of 2 MiB are not discarded, wherever the key stands", () => {
  expect(parseStressGuest("stress:size=64MiB,page-size=2M").discardRate).toBe(0);
  expect(parseStressGuest("stress:discard=0,page-size=2M").pageSize).toBe(2 ** 21);
  expect(problem("stress:discard=0.1,page-size=2M")).toContain("discard is not 0");
});

test("the rate may be unlimited", () => {
  expect(parseStressGuest("stress:rate=unlimited").rate).toBe(0);
  expect(parseStressGuest("stress:rate=0").rate).toBe(0);
});

describe("a mistake is named, with a way out", () => {
  const cases: [string, string][] = [
    ["stres", '"stres" is no stress guest (write stress or stress:size=4GiB)'],
    ["stress:", 'there is no key ""'],
    ["stress:sise=1GiB", 'there is no key "sise" (did you mean size?)'],
    ["stress:color=red", 'there is no key "color" (the keys are size, workers'],
    ["stress:size", "size has no value (write size=VALUE; the default is 1 GiB)"],
    ["stress:size=", "size has no value"],
    ["stress:size=1GiB,size=2GiB", "size is given twice"],
    ["stress:size=1g", "size: "],
    ["stress:size=4097", "size of 4097 bytes cannot be cut"],
    ["stress:workers=0", "workers: "],
    ["stress:workers=two", "workers: "],
    ["stress:page-size=1G", "page-size is 1073741824 bytes (a host page of the guest is 4 KiB"],
    ["stress:rate=fast", 'rate: "fast" is not a rate'],
    ["stress:hot=110%", 'hot: "110%" is not a share of a whole (write a share as 0.25 or 25%)'],
    ["stress:zero=-1", 'zero: "-1" is not a share'],
    ["stress:hot=0.5,zero=0.6", "hot of 0.5 overlaps a zero fraction of 0.6"],
    ["stress:duration=5", "duration: "],
    ["stress:duration=25h", "duration is 90000000, not a whole number"],
  ];
  test.each(cases)("%s", (word, text) => {
    expect(problem(word)).toContain(text);
  });

  test("a word without end", () => {
    expect(problem(`stress:seed=${"1".repeat(2000)}`)).toContain("is no stress guest");
  });
});
