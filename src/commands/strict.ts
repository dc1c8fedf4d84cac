/**
 * A command whose flags are declared once: the declaration makes the help, the check of the command
 * line and the typed options. citty has the command's definition, its help and its life cycle; what
 * it does not check is checked here (see words.ts).
 */
import { defineCommand } from "citty";
import type { ArgsDef, CommandDef } from "citty";
import type * as z from "zod";
import { UsageError } from "../util/errors.ts";
import { quoted } from "../util/units.ts";
import { listOf, splitArguments } from "./words.ts";
import type { FlagShape, RawOptions } from "./words.ts";

/** One flag: how it is written and explained, and the schema that its text must meet. */
export interface Flag<Value> extends FlagShape {
  description: string;
  required: boolean;
  /** Text that stands in when the flag is not given; it goes through the schema like any other. */
  default?: string | undefined;
  /** From text; a switch has none. */
  schema?: z.ZodType<Value, string> | undefined;
  /** The same for each text of a list. */
  item?: z.ZodType<unknown, string> | undefined;
}

interface FlagText {
  description: string;
  valueHint: string;
  alias?: string;
}

/** A flag that must be given. */
export function requiredFlag<Value>(schema: z.ZodType<Value, string>, text: FlagText): Flag<Value> {
  return { kind: "value", required: true, schema, ...text };
}

/** A flag that has a default, written as one would write it. */
export function defaultFlag<Value>(
  schema: z.ZodType<Value, string>,
  text: FlagText & { default: string },
): Flag<Value> {
  return { kind: "value", required: false, schema, ...text };
}

/** A flag that may be left out. */
export function optionalFlag<Value>(
  schema: z.ZodType<Value, string>,
  text: FlagText,
): Flag<Value | undefined> {
  return { kind: "value", required: false, schema, ...text };
}

/** A flag that may be given several times, or not at all. */
export function repeatedFlag<Item>(schema: z.ZodType<Item, string>, text: FlagText): Flag<Item[]> {
  return { kind: "list", required: false, item: schema, ...text };
}

/** A flag without a value: given or not. */
export function switchFlag(description: string, alias?: string): Flag<boolean> {
  return { kind: "switch", required: false, description, alias };
}

/** A word without a dash, which may be left out; several are told apart by their order. */
export function optionalWord<Value>(
  schema: z.ZodType<Value, string>,
  description: string,
): Flag<Value | undefined> {
  return { kind: "word", required: false, schema, description };
}

/** A word without a dash that must be given. */
export function requiredWord<Value>(
  schema: z.ZodType<Value, string>,
  description: string,
): Flag<Value> {
  return { kind: "word", required: true, schema, description };
}

type Flags = Readonly<Record<string, Flag<unknown>>>;

/** The typed options of a table of flags. Flags are in kebab case there, camel case here. */
export type OptionsOf<Table extends Flags> = {
  [Name in keyof Table & string as CamelCase<Name>]: Table[Name] extends Flag<infer Value>
    ? Value
    : never;
};

type CamelCase<Name extends string> = Name extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Name;

/** What a command file declares. */
export interface StrictDefinition<Table extends Flags> {
  name: string;
  description: string;
  flags: Table;
  /** What the help says between the flags and the example. */
  notes?: string;
  /** A whole working example, which ends the help. */
  example: string;
  /** Throws a UsageError when flags contradict each other; `given`: those that were written. */
  check?: (options: OptionsOf<Table>, given: ReadonlySet<string>) => void;
  /** Resolves to the exit code; nothing means 0. */
  run: (options: OptionsOf<Table>) => Promise<number | void>;
}

/** A command as main() runs it. */
export interface StrictCommand {
  citty: CommandDef;
  notes: string | undefined;
  example: string;
  /** Typed options of a command line; throws a UsageError. */
  parse: (argv: readonly string[]) => unknown;
}

/** Makes a command of its declaration. */
export function defineStrictCommand<const Table extends Flags>(
  definition: StrictDefinition<Table>,
): StrictCommand {
  const parse = (argv: readonly string[]): OptionsOf<Table> => {
    const raw = splitArguments(argv, definition.flags);
    const typed = readOptions(raw, definition.flags) as OptionsOf<Table>;
    definition.check?.(typed, new Set(raw.keys()));
    return typed;
  };
  const citty = defineCommand({
    meta: { name: definition.name, description: definition.description },
    args: cittyArguments(definition.flags),
    run: ({ data }) => definition.run(data as OptionsOf<Table>),
  });
  return { citty, notes: definition.notes, example: definition.example, parse };
}

/** The flags as citty's help wants them. */
function cittyArguments(flags: Flags): ArgsDef {
  const described: ArgsDef = {};
  for (const [name, flag] of Object.entries(flags)) {
    const { description, valueHint, alias, required } = flag;
    const shared = { description, required, ...(valueHint === undefined ? {} : { valueHint }) };
    const short = alias === undefined ? {} : { alias };
    const preset = flag.default === undefined ? {} : { default: flag.default };
    if (flag.kind === "word") described[name] = { type: "positional", ...shared };
    else if (flag.kind === "switch") described[name] = { type: "boolean", ...shared, ...short };
    else described[name] = { type: "string", ...shared, ...short, ...preset };
  }
  described["help"] = { type: "boolean", alias: "h", description: "This text" };
  return described;
}

function camelCase(name: string): string {
  return name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function readOptions(raw: RawOptions, flags: Flags): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const [name, flag] of Object.entries(flags)) {
    const text = raw.get(name) ?? flag.default;
    if (flag.kind === "switch") options[camelCase(name)] = text === true;
    else if (flag.kind === "list") {
      const item = { ...flag, schema: flag.item };
      options[camelCase(name)] = listOf(raw.get(name)).map((each) => readValue(name, item, each));
    } else if (typeof text === "string") options[camelCase(name)] = readValue(name, flag, text);
    else if (flag.required) throw missingFlag(name, flag);
    else options[camelCase(name)] = undefined;
  }
  return options;
}

function missingFlag(name: string, flag: Flag<unknown>): UsageError {
  if (flag.kind === "word") {
    const hint = `write it behind the command: ${flag.description}`;
    return new UsageError("MISSING_WORD", `Word ${name.toUpperCase()} is missing`, { hint });
  }
  const written = `--${name} ${flag.valueHint ?? "VALUE"}`;
  return new UsageError("MISSING_FLAG", `Flag --${name} is missing`, {
    hint: `add ${written}: ${flag.description}`,
  });
}

function readValue(name: string, flag: Flag<unknown>, text: string): unknown {
  const result = flag.schema?.safeParse(text);
  if (result === undefined) throw new Error(`flag ${name} has no schema`);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  if (issue === undefined) throw new Error(`flag ${name} was refused without a reason`);
  const what = flag.kind === "word" ? `Word ${name.toUpperCase()}` : `Flag --${name}`;
  // Our own parsers repeat the text in their sentence; zod's own messages do not.
  const message = issue.code === "custom" ? issue.message : `${issue.message}, not ${quoted(text)}`;
  const given: unknown = issue.code === "custom" ? issue.params?.["hint"] : undefined;
  throw new UsageError("BAD_VALUE", `${what}: ${message}`, {
    hint: typeof given === "string" ? given : flag.description,
  });
}
