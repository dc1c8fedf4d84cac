/**
 * Splits a command line into flags and words, and refuses what it does not know. citty's own parser
 * takes unknown flags, drops extra words, keeps the last of two values and reads a forgotten value
 * as "": for a tool that moves guests each of these is a mistake worth an error.
 *
 * What is accepted: `--flag VALUE`, `--flag=VALUE`, `--switch`, `-v`, words, and `--` before words
 * that begin with a dash. Names are written as in the help: kebab case, in full.
 */
import { UsageError } from "../util/errors.ts";
import { nearest } from "../util/suggest.ts";
import { quoted } from "../util/units.ts";

/** What the splitter has to know of a flag. */
export interface FlagShape {
  /** A switch is there or not; a value flag has a value, a list several; a word has its place. */
  kind: "switch" | "value" | "list" | "word";
  /** One letter, for `-v`. */
  alias?: string | undefined;
  /** What stands for the value in the help, such as SIZE. */
  valueHint?: string | undefined;
}

export type FlagShapes = Readonly<Record<string, FlagShape>>;

/**
 * What was written: name to text, to true for a switch, to all texts of a list. Flags that were not
 * given are absent.
 */
export type RawOptions = Map<string, string | true | string[]>;

/** Arguments before `--`: only there is `--help` a flag. */
export function beforeSeparator(argv: readonly string[]): readonly string[] {
  const separator = argv.indexOf("--");
  return separator < 0 ? argv : argv.slice(0, separator);
}

function flagNames(shapes: FlagShapes): string[] {
  return Object.keys(shapes).filter((name) => shapes[name]?.kind !== "word");
}

function unknownFlag(written: string, shapes: FlagShapes): UsageError {
  const near = nearest(written.replace(/^-+/, ""), flagNames(shapes));
  return new UsageError("UNKNOWN_FLAG", `There is no flag ${quoted(written)}`, {
    hint: near === undefined ? "--help lists the flags" : `did you mean --${near}?`,
  });
}

function findFlag(written: string, shapes: FlagShapes): string {
  const long = written.startsWith("--") ? written.slice(2) : undefined;
  for (const name of flagNames(shapes)) {
    const alias = shapes[name]?.alias;
    if (long === undefined ? alias !== undefined && written === `-${alias}` : long === name) {
      return name;
    }
  }
  throw unknownFlag(written, shapes);
}

function missingValue(name: string, shape: FlagShape): UsageError {
  return new UsageError("MISSING_VALUE", `Flag --${name} has no value`, {
    hint: `write --${name} ${shape.valueHint ?? "VALUE"}, or --${name}=VALUE if it begins with "-"`,
  });
}

function extraWord(word: string, shapes: FlagShapes): UsageError {
  const near = nearest(word, flagNames(shapes));
  return new UsageError("EXTRA_WORD", `The word ${quoted(word)} is one too many`, {
    hint:
      near === undefined
        ? "values follow their flag: --flag VALUE; --help shows an example"
        : `did you mean --${near}?`,
  });
}

/** Splits `argv` (what follows the command's name); throws a UsageError on anything unknown. */
export function splitArguments(argv: readonly string[], shapes: FlagShapes): RawOptions {
  const raw: RawOptions = new Map();
  const places = Object.keys(shapes).filter((name) => shapes[name]?.kind === "word");
  const takeWord = (word: string): void => {
    const place = places.shift();
    if (place === undefined) throw extraWord(word, shapes);
    raw.set(place, word);
  };
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? "";
    if (argument === "--") {
      argv.slice(index + 1).forEach(takeWord);
      return raw;
    }
    if (!argument.startsWith("-") || argument === "-") {
      takeWord(argument);
      continue;
    }
    const equals = argument.indexOf("=");
    const written = equals < 0 ? argument : argument.slice(0, equals);
    const name = findFlag(written, shapes);
    const isList = shapes[name]?.kind === "list";
    const before = raw.get(name);
    if (before !== undefined && !isList) {
      throw new UsageError("REPEATED_FLAG", `Flag --${name} is given twice`, {
        hint: "leave one of them out",
      });
    }
    const inline = equals < 0 ? undefined : argument.slice(equals + 1);
    const [value, used] = flagValue(name, shapes, inline, argv[index + 1]);
    raw.set(name, isList ? [...listOf(before), String(value)] : value);
    index += used;
  }
  return raw;
}

/** The texts of a flag that may be repeated; none where it is not given. */
export function listOf(value: string | true | string[] | undefined): string[] {
  return Array.isArray(value) ? value : [];
}

/** The value of one flag, and how many further arguments it took. */
function flagValue(
  name: string,
  shapes: FlagShapes,
  inline: string | undefined,
  next: string | undefined,
): [value: string | true, used: 0 | 1] {
  const shape = shapes[name] ?? { kind: "switch" };
  if (shape.kind === "switch") {
    if (inline === undefined) return [true, 0];
    throw new UsageError("UNWANTED_VALUE", `Flag --${name} takes no value`, {
      hint: `write --${name}, or leave it out`,
    });
  }
  if (inline !== undefined) {
    if (inline === "") throw missingValue(name, shape);
    return [inline, 0];
  }
  // A forgotten value must not swallow the flag behind it; "-" alone is a common name for a stream.
  const isValue = next !== undefined && next !== "" && (next === "-" || !next.startsWith("-"));
  if (!isValue) throw missingValue(name, shape);
  return [next, 1];
}
