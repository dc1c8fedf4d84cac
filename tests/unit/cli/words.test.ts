import { expect, test } from "bun:test";
import fc from "fast-check";
import { UsageError } from "../../../src/util/errors.ts";
import { beforeSeparator, splitArguments } from "../../../src/commands/words.ts";
import type { FlagShapes } from "../../../src/commands/words.ts";

const SHAPES: FlagShapes = {
  guest: { kind: "value", valueHint: "GUEST" },
  "max-bandwidth": { kind: "value", valueHint: "RATE" },
  json: { kind: "switch" },
  verbose: { kind: "switch", alias: "v" },
  allow: { kind: "list", valueHint: "ADDRESS" },
  name: { kind: "word" },
};

function split(...argv: string[]): Record<string, unknown> {
  return Object.fromEntries(splitArguments(argv, SHAPES));
}

test.each([
  [["--guest", "stress"], { guest: "stress" }],
  [["--guest=stress:size=1GiB"], { guest: "stress:size=1GiB" }],
  [["--guest=--odd"], { guest: "--odd" }],
  [["--guest", "-"], { guest: "-" }],
  [["--json", "-v", "word"], { json: true, verbose: true, name: "word" }],
  [["--", "--guest"], { name: "--guest" }],
  [["--allow", "a"], { allow: ["a"] }],
  [["--allow", "a", "--json", "--allow=b"], { allow: ["a", "b"], json: true }],
  [["-"], { name: "-" }],
  [[], {}],
])("%j is understood", (argv, wanted) => {
  expect(split(...argv)).toEqual(wanted);
});

test.each([
  [["--gest", "x"], "UNKNOWN_FLAG", 'There is no flag "--gest"', "did you mean --guest?"],
  [["--maxBandwidth=1"], "UNKNOWN_FLAG", '"--maxBandwidth"', "did you mean --max-bandwidth?"],
  [["--bandwith=1"], "UNKNOWN_FLAG", '"--bandwith"', "did you mean --max-bandwidth?"],
  [["--no-json"], "UNKNOWN_FLAG", '"--no-json"', "--json"],
  [["--constructor"], "UNKNOWN_FLAG", '"--constructor"', "--help lists the flags"],
  [["--name=x"], "UNKNOWN_FLAG", '"--name"', "--help lists the flags"],
  [["-x"], "UNKNOWN_FLAG", '"-x"', "--help lists the flags"],
  [["-vv"], "UNKNOWN_FLAG", '"-vv"', "--help lists the flags"],
  [["--guest"], "MISSING_VALUE", "Flag --guest has no value", "write --guest GUEST"],
  [["--guest", "--json"], "MISSING_VALUE", "Flag --guest has no value", "write --guest GUEST"],
  [["--allow", "a", "--allow"], "MISSING_VALUE", "Flag --allow has no value", "--allow ADDRESS"],
  [["--guest="], "MISSING_VALUE", "Flag --guest has no value", "write --guest GUEST"],
  [["--guest", ""], "MISSING_VALUE", "Flag --guest has no value", "write --guest GUEST"],
  [["--json=true"], "UNWANTED_VALUE", "Flag --json takes no value", "write --json"],
  [["--json", "--json"], "REPEATED_FLAG", "Flag --json is given twice", "leave one"],
  [["--guest=a", "--guest", "b"], "REPEATED_FLAG", "Flag --guest is given twice", "leave one"],
  [["-v", "--verbose"], "REPEATED_FLAG", "Flag --verbose is given twice", "leave one"],
  [["one", "two"], "EXTRA_WORD", 'The word "two" is one too many', "--help shows an example"],
  [["one", "guest"], "EXTRA_WORD", 'The word "guest" is one too many', "did you mean --guest?"],
  [["one", "--", "two"], "EXTRA_WORD", 'The word "two" is one too many', "--help"],
])("%j is refused as %s", (argv, code, message, hint) => {
  let thrown: unknown;
  try {
    split(...argv);
  } catch (error) {
    thrown = error;
  }
  if (!(thrown instanceof UsageError)) throw new Error("it was accepted", { cause: thrown });
  expect(thrown.code).toBe(code);
  expect(thrown.message).toContain(message);
  expect(thrown.hint).toContain(hint);
});

test("any arguments are either understood in full or refused by a UsageError", () => {
  const argument = fc.oneof(
    fc.constantFrom("--guest", "--json", "-v", "--", "--guest=x", "x", "", "-", "--__proto__"),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(argument, { maxLength: 6 }), (argv) => {
      try {
        const raw = splitArguments(argv, SHAPES);
        for (const name of raw.keys()) expect(Object.keys(SHAPES)).toContain(name);
      } catch (error) {
        expect(error).toBeInstanceOf(UsageError);
      }
    }),
  );
});

test("only what stands before -- can ask for help", () => {
  expect(beforeSeparator(["a", "--", "--help"])).toEqual(["a"]);
  expect(beforeSeparator(["a", "--help"])).toEqual(["a", "--help"]);
});
