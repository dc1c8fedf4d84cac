/**
 * Quantities as zod codecs: text as people write it on one side, a number on the other. For flags
 * and the parameters of a guest; `encode` writes a number back as it could have been given.
 */
import * as z from "zod";
import { formatDuration, parseDuration } from "./duration.ts";
import { PostcopyError, UsageError } from "./errors.ts";
import { nearest } from "./suggest.ts";
import {
  formatBytes,
  formatPageSize,
  formatRate,
  parseBytes,
  parsePageSize,
  parseRate,
  quoted,
} from "./units.ts";

/**
 * A schema from a function that parses one text and throws a PostcopyError when it is wrong. The
 * error's sentence becomes the issue's message, its hint the parameter `hint` of the issue.
 */
export function fromText<Value>(parse: (text: string) => Value) {
  return z.string().transform((text, context): Value => {
    try {
      return parse(text);
    } catch (thrown) {
      context.issues.push(issueOf(text, thrown));
      return z.NEVER;
    }
  });
}

/** The same with the way back, for values that have one. */
function codecOf(parse: (text: string) => number, format: (value: number) => string) {
  return z.codec(z.string(), z.number(), {
    decode: (text, context) => {
      try {
        return parse(text);
      } catch (thrown) {
        context.issues.push(issueOf(text, thrown));
        return z.NEVER;
      }
    },
    encode: format,
  });
}

/** The sentences of the error and of its causes make the message; the first hint is the hint. */
function issueOf(input: string, thrown: unknown) {
  if (!(thrown instanceof PostcopyError)) throw thrown;
  const sentences: string[] = [];
  let hint: string | undefined;
  for (let at: unknown = thrown; at instanceof Error; at = at.cause) {
    sentences.push(at.message);
    if (at instanceof PostcopyError) hint ??= at.hint;
  }
  return { code: "custom" as const, input, message: sentences.join(": "), params: { hint } };
}

/** Bytes: "4096", "1GiB", "2MB". */
export const bytesSchema = codecOf(parseBytes, formatBytes);

/** Bytes of a page: "4K", "2M". */
export const pageSizeSchema = codecOf(parsePageSize, formatPageSize);

/** Bytes a second: "200MiB/s", "1Gbit/s". */
export const rateSchema = codecOf(parseRate, formatRate);

/** Milliseconds: "300ms", "2m". */
export const durationSchema = codecOf(parseDuration, formatDuration);

/** A whole number between two bounds, both allowed, written in decimal. */
export function integerSchema(least: number, most: number) {
  return fromText((text): number => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (value >= least && value <= most) return value;
    throw new UsageError(
      "BAD_NUMBER",
      `${quoted(text)} is not a whole number from ${least} to ${most}`,
      {
        hint: `write it in decimal digits, such as ${least}`,
      },
    );
  });
}

/** One word of a few. */
export function choiceSchema<const Choice extends string>(choices: readonly Choice[]) {
  return fromText((text): Choice => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    const near = nearest(text, choices);
    throw new UsageError("BAD_CHOICE", `${quoted(text)} is not one of ${choices.join(", ")}`, {
      hint: near === undefined ? "write one of them" : `did you mean ${near}?`,
    });
  });
}
