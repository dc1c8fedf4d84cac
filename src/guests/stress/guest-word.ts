/**
 * The guest word of the command line, `stress` or `stress:size=4GiB,workers=4,…`, turned into
 * parameters. Only main parses; threads get the parameters.
 */
import type * as z from "zod";
import { formatDuration, parseDuration } from "../../util/duration.ts";
import { UsageError } from "../../util/errors.ts";
import { bytesSchema, fromText, integerSchema, pageSizeSchema } from "../../util/schemas.ts";
import { nearest } from "../../util/suggest.ts";
import { formatBytes, formatPageSize, formatRate, parseRate, quoted } from "../../util/units.ts";
import {
  BLOCKS_MAX,
  PAGE_SIZE_HUGE,
  parameterProblem,
  SEED_MAX,
  STRESS_DEFAULTS,
  WORKERS_MAX,
  type StressParameters,
} from "./parameters.ts";

/** Longest guest word that is looked at. */
const WORD_MAX = 1024;

const shareSchema = fromText((text) => {
  const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(text);
  const value = match === null ? NaN : Number(match[1]) / (match[2] === "%" ? 100 : 1);
  if (value <= 1) return value;
  throw new UsageError("BAD_SHARE", `${quoted(text)} is not a share of a whole`, {
    hint: "write a share as 0.25 or 25%",
  });
});

const rateSchema = fromText((text) => (text === "unlimited" ? 0 : parseRate(text)));

/** Every key of the guest word: the parameter, its schema, its meaning and its default in words. */
const KEYS = {
  size: {
    parameter: "size",
    schema: bytesSchema,
    meaning: "RAM of the guest",
    default: formatBytes(STRESS_DEFAULTS.size),
  },
  workers: {
    parameter: "workers",
    schema: integerSchema(1, WORKERS_MAX),
    meaning: "threads that write and check pages",
    default: String(STRESS_DEFAULTS.workers),
  },
  blocks: {
    parameter: "blocks",
    schema: integerSchema(1, BLOCKS_MAX),
    meaning: "RAM blocks that the size is split into",
    default: String(STRESS_DEFAULTS.blocks),
  },
  "page-size": {
    parameter: "pageSize",
    schema: pageSizeSchema,
    meaning: "host page size, 4K or 2M (hugetlbfs)",
    default: formatPageSize(STRESS_DEFAULTS.pageSize),
  },
  rate: {
    parameter: "rate",
    schema: rateSchema,
    meaning: "bytes dirtied a second by all workers, or unlimited",
    default: formatRate(STRESS_DEFAULTS.rate),
  },
  hot: {
    parameter: "hotFraction",
    schema: shareSchema,
    meaning: "share of the pages that are hot",
    default: String(STRESS_DEFAULTS.hotFraction),
  },
  "hot-share": {
    parameter: "hotShare",
    schema: shareSchema,
    meaning: "share of the operations that go to hot pages",
    default: String(STRESS_DEFAULTS.hotShare),
  },
  zero: {
    parameter: "zeroFraction",
    schema: shareSchema,
    meaning: "share of the pages that are never written",
    default: String(STRESS_DEFAULTS.zeroFraction),
  },
  discard: {
    parameter: "discardRate",
    schema: shareSchema,
    meaning: "share of the operations that discard the page",
    default: `${STRESS_DEFAULTS.discardRate} (0 with 2M pages)`,
  },
  seed: {
    parameter: "seed",
    schema: integerSchema(0, SEED_MAX),
    meaning: "seed of contents and choices",
    default: String(STRESS_DEFAULTS.seed),
  },
  duration: {
    parameter: "durationMs",
    schema: fromText((text) => Math.round(parseDuration(text))),
    meaning: "how long the destination runs the guest on when all pages are there",
    default: formatDuration(STRESS_DEFAULTS.durationMs),
  },
} as const satisfies Record<
  string,
  { parameter: keyof StressParameters; schema: z.ZodType<number>; meaning: string; default: string }
>;

type Key = keyof typeof KEYS;
const KEY_NAMES = Object.keys(KEYS) as Key[];

/** The keys with meaning and default, for the help of the commands. */
export const STRESS_KEYS: readonly { key: string; meaning: string; default: string }[] =
  KEY_NAMES.map((key) => ({ key, meaning: KEYS[key].meaning, default: KEYS[key].default }));

/**
 * Parameters from `stress` or `stress:KEY=VALUE,…`; what is not given has its default. Throws
 * UsageError BAD_GUEST that names the key, what is wrong and what would be right.
 */
export function parseStressGuest(word: string): StressParameters {
  const parameters: StressParameters = { ...STRESS_DEFAULTS };
  for (const [key, text] of splitGuestWord(word)) {
    parameters[KEYS[key].parameter] = parseValue(key, text);
    if (key === "page-size" && parameters.pageSize === PAGE_SIZE_HUGE) parameters.discardRate = 0;
  }
  const problem = parameterProblem(parameters);
  if (problem === undefined) return parameters;
  const key = KEY_NAMES.find((name) => KEYS[name].parameter === problem.parameter);
  throw badGuest(`${key} ${problem.message}`, problem.hint);
}

/** The keys and values of a guest word; page-size comes first, as another default hangs on it. */
function splitGuestWord(word: string): Map<Key, string> {
  const [name, ...rest] = word.split(":");
  const list = rest.join(":");
  if (name !== "stress" || word.length > WORD_MAX) {
    throw badGuest(`${quoted(word)} is no stress guest`, "write stress or stress:size=4GiB");
  }
  const values = new Map<Key, string>();
  const pairs = rest.length === 0 ? [] : list.split(",");
  for (const pair of pairs) {
    const equals = pair.indexOf("=");
    const key = findKey(equals < 0 ? pair : pair.slice(0, equals));
    if (equals < 0 || equals === pair.length - 1) {
      throw badGuest(
        `${key} has no value`,
        `write ${key}=VALUE; the default is ${KEYS[key].default}`,
      );
    }
    if (values.has(key)) throw badGuest(`${key} is given twice`, "give each key once");
    values.set(key, pair.slice(equals + 1));
  }
  const pageSize = values.get("page-size");
  return pageSize === undefined ? values : new Map([["page-size", pageSize], ...values]);
}

function findKey(written: string): Key {
  const key = KEY_NAMES.find((name) => name === written);
  if (key !== undefined) return key;
  const near = nearest(written, KEY_NAMES);
  throw badGuest(
    `there is no key ${quoted(written)}`,
    near === undefined ? `the keys are ${KEY_NAMES.join(", ")}` : `did you mean ${near}?`,
  );
}

function parseValue(key: Key, text: string): number {
  const result = KEYS[key].schema.safeParse(text);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const hint = issue?.code === "custom" ? issue.params?.["hint"] : undefined;
  throw badGuest(
    `${key}: ${issue?.message ?? "is wrong"}`,
    typeof hint === "string" ? hint : `${KEYS[key].meaning}; the default is ${KEYS[key].default}`,
  );
}

function badGuest(what: string, hint: string): UsageError {
  return new UsageError("BAD_GUEST", `Guest stress: ${what}`, { hint });
}
