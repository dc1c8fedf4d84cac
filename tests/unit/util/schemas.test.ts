import { expect, test } from "bun:test";
import fc from "fast-check";
import * as z from "zod";
import { PostcopyError } from "../../../src/util/errors.ts";
import {
  bytesSchema,
  choiceSchema,
  durationSchema,
  fromText,
  integerSchema,
  pageSizeSchema,
  rateSchema,
} from "../../../src/util/schemas.ts";

function issueOf(schema: z.ZodType, text: string) {
  const result = schema.safeParse(text);
  const issue = result.error?.issues[0];
  if (issue?.code !== "custom") throw new Error(`${text} was not refused`);
  return { message: issue.message, hint: issue.params?.["hint"] as unknown };
}

test("codecs read text and write it back", () => {
  expect(z.decode(bytesSchema, "2MiB")).toBe(2_097_152);
  expect(z.encode(bytesSchema, 2_097_152)).toBe("2 MiB");
  expect(z.decode(rateSchema, "1Gbit/s")).toBe(125e6);
  expect(z.encode(rateSchema, 2 ** 20)).toBe("1 MiB/s");
  expect(z.decode(durationSchema, "2m")).toBe(120_000);
  expect(z.encode(durationSchema, 1500)).toBe("1.50 s");
  expect(z.decode(pageSizeSchema, "2M")).toBe(2_097_152);
  expect(z.encode(pageSizeSchema, 4096)).toBe("4K");
});

test("an issue carries the parser's sentence and hint", () => {
  expect(issueOf(bytesSchema, "many")).toEqual({
    message: '"many" is not a size',
    hint: expect.stringContaining("512MiB"),
  });
});

test("causes are part of the message, and the outermost hint is taken", () => {
  const schema = fromText((): never => {
    const cause = new PostcopyError("B", "because of that", { hint: "inner" });
    throw new PostcopyError("A", "this failed", { cause, hint: "outer" });
  });
  expect(issueOf(schema, "x")).toEqual({ message: "this failed: because of that", hint: "outer" });
});

test("a programmer's error in a parser is not the user's", () => {
  const schema = fromText((): never => {
    throw new TypeError("undefined is not a function");
  });
  expect(() => schema.safeParse("x")).toThrow(TypeError);
});

test("whole numbers keep to their bounds", () => {
  const schema = integerSchema(1, 64);
  fc.assert(
    fc.property(fc.integer({ min: -10, max: 100 }), (value) => {
      expect(schema.safeParse(String(value)).success).toBe(value >= 1 && value <= 64);
    }),
  );
  for (const text of ["", "1.5", "0x10", "1e1", " 2", "9".repeat(30)]) {
    expect(issueOf(schema, text).message).toEndWith("is not a whole number from 1 to 64");
  }
});

test("a choice suggests what is near", () => {
  const schema = choiceSchema(["auto", "now"]);
  expect(schema.parse("now")).toBe("now");
  expect(issueOf(schema, "nwo")).toEqual({
    message: '"nwo" is not one of auto, now',
    hint: "did you mean now?",
  });
  expect(issueOf(schema, "constructor").hint).toBe("write one of them");
});
