import { expect, test } from "bun:test";
import * as z from "zod";
import { checkCommon, COMMON_FLAGS } from "../../../src/commands/common.ts";
import {
  defaultFlag,
  defineStrictCommand,
  optionalFlag,
  optionalWord,
  repeatedFlag,
  requiredFlag,
} from "../../../src/commands/strict.ts";
import { UsageError } from "../../../src/util/errors.ts";
import { bytesSchema, durationSchema } from "../../../src/util/schemas.ts";

const command = defineStrictCommand({
  name: "move",
  description: "Move a guest",
  flags: {
    guest: requiredFlag(z.string(), { valueHint: "GUEST", description: "What to move" }),
    "page-bytes": defaultFlag(bytesSchema, {
      valueHint: "SIZE",
      description: "Size of a page",
      default: "4KiB",
    }),
    "downtime-limit": optionalFlag(durationSchema, {
      valueHint: "DURATION",
      description: "How long the guest may stand",
    }),
    mode: optionalFlag(z.enum(["fast", "safe"]), { valueHint: "MODE", description: "How to" }),
    times: repeatedFlag(durationSchema, { valueHint: "DURATION", description: "When" }),
    name: optionalWord(z.string(), "A name"),
    ...COMMON_FLAGS,
  },
  example: "move --guest stress",
  check: (options) => {
    checkCommon(options);
    // The types are those of the schemas: this line would not compile otherwise.
    const sum: number = options.pageBytes + (options.downtimeLimit ?? 0);
    if (Number.isNaN(sum)) throw new Error("not numbers");
  },
  run: async () => {},
});

function refusal(...argv: string[]): string {
  try {
    command.parse(argv);
  } catch (error) {
    if (error instanceof UsageError) return `${error.message} | ${error.hint}`;
    throw error;
  }
  throw new Error(`${argv.join(" ")} was accepted`);
}

test("text becomes typed options, in camel case, with defaults", () => {
  expect(command.parse(["--guest", "stress", "--downtime-limit", "2s", "-q"])).toEqual({
    guest: "stress",
    pageBytes: 4096,
    downtimeLimit: 2000,
    mode: undefined,
    times: [],
    name: undefined,
    json: false,
    quiet: true,
    verbose: false,
  });
});

test("a flag that may be repeated gives all its values, each checked", () => {
  expect(command.parse(["--guest", "x", "--times", "2s", "--times=300ms"])).toMatchObject({
    times: [2000, 300],
  });
  expect(refusal("--guest", "x", "--times", "2s", "--times", "soon")).toStartWith("Flag --times:");
});

test("a missing flag is named with its value and what it is for", () => {
  expect(refusal("--json")).toBe("Flag --guest is missing | add --guest GUEST: What to move");
});

test("a mistyped flag is reported before the one that is then missing", () => {
  expect(refusal("--gest", "x")).toStartWith('There is no flag "--gest"');
});

test("a wrong value is named with the flag and what is allowed", () => {
  expect(refusal("--guest", "x", "--page-bytes", "4k")).toMatch(
    /^Flag --page-bytes: "4k" has no known unit.*4KiB|KiB.* \| write a size as/,
  );
  expect(refusal("--guest", "x", "--mode", "slow")).toBe(
    'Flag --mode: Invalid option: expected one of "fast"|"safe", not "slow" | How to',
  );
});

test("flags that contradict each other are refused", () => {
  expect(refusal("--guest", "x", "-q", "-v")).toContain("--quiet and --verbose contradict");
});
