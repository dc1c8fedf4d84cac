/**
 * Runs one command line from its words to its exit code. citty's own main prints errors its way,
 * always exits with 1, and finds commands in the prototype of its table; so its parts are used
 * (definitions, help, life cycle) and the rest is here.
 */
import { defineCommand, renderUsage, runCommand } from "citty";
import type { CommandDef } from "citty";
import { stripVTControlCharacters } from "node:util";
import { createEventWriter } from "../report/sink.ts";
import { describeError, errorRecord, EXIT, UsageError } from "../util/errors.ts";
import type { ErrorRecord } from "../util/errors.ts";
import { nearest } from "../util/suggest.ts";
import { stderrTerminal, wantsColours } from "../util/terminal.ts";
import { quoted } from "../util/units.ts";
import { Interrupts } from "./interrupts.ts";
import { checkEnvironment } from "./environment.ts";
import type { StrictCommand } from "./strict.ts";
import { beforeSeparator } from "./words.ts";

/** A command as the router knows it: its file is loaded only when it is used. */
export interface CommandEntry {
  summary: string;
  load: () => Promise<StrictCommand>;
}

export interface Program {
  name: string;
  version: string;
  description: string;
  commands: Readonly<Record<string, CommandEntry>>;
  /** A whole working example, which ends the help. */
  example: string;
}

/** How long the last lines may take to leave through a pipe that nobody reads. */
const FLUSH_MS_MAX = 2000;

/** Runs a command line; resolves to the exit code once everything is written. */
export async function main(program: Program, argv: readonly string[]): Promise<number> {
  ignoreBrokenPipes();
  Interrupts.exitFollows = true;
  let exitCode: number;
  try {
    // A checkout is run by its developer's Bun, as that one likes it.
    if (Bun.isStandaloneExecutable) checkEnvironment(process.env);
    exitCode = await dispatch(program, argv);
  } catch (thrown) {
    exitCode = reportError(program, argv, thrown);
  }
  await flush(process.stdout);
  await flush(process.stderr);
  return exitCode;
}

/**
 * Says what was thrown: the chain of sentences to people, and with --json an event. The stack comes
 * with --verbose, and whenever the error is this program's own mistake. Returns the exit code.
 */
export function reportError(program: Program, argv: readonly string[], thrown: unknown): number {
  const flags = beforeSeparator(argv);
  const record = errorRecord(thrown);
  const internal = record.code === "INTERNAL";
  const lines = [`${program.name}: ${internal ? "internal error: " : ""}${describeError(record)}`];
  if (internal || flags.includes("--verbose") || flags.includes("-v")) {
    for (let at: ErrorRecord | undefined = record; at !== undefined; at = at.cause) {
      if (at.stack !== undefined) lines.push(at.stack);
    }
  }
  stderrTerminal.clearStatus();
  stderrTerminal.writeLines(lines.join("\n"));
  if (flags.includes("--json")) {
    createEventWriter(process.stdout).emit({ event: "error", ...errorFields(record) });
  }
  return record.exitCode;
}

function errorFields(record: ErrorRecord) {
  const messages: string[] = [];
  const hints: string[] = [];
  for (let at: ErrorRecord | undefined = record; at !== undefined; at = at.cause) {
    messages.push(at.message);
    if (at.hint !== undefined) hints.push(at.hint);
  }
  const { code, exitCode } = record;
  return { code, message: messages.join(": "), hints, exitCode };
}

async function dispatch(program: Program, argv: readonly string[]): Promise<number> {
  const [first, ...rest] = argv;
  if (first === undefined) {
    writeHelp(await programHelp(program), process.stderr);
    return EXIT.usage;
  }
  if (first === "--version" || first === "-V") {
    process.stdout.write(`${program.name} ${program.version}\n`);
    return EXIT.ok;
  }
  if (first === "--help" || first === "-h") {
    writeHelp(await programHelp(program), process.stdout);
    return EXIT.ok;
  }
  const command = await findCommand(program, first).load();
  if (beforeSeparator(rest).some((word) => word === "--help" || word === "-h")) {
    writeHelp(await commandHelp(program, command), process.stdout);
    return EXIT.ok;
  }
  // The strict parser speaks first: citty's would report "missing" where a name was mistyped.
  const options = command.parse(rest);
  const { result } = await runCommand(command.citty, { rawArgs: [...rest], data: options });
  return typeof result === "number" ? result : EXIT.ok;
}

function findCommand(program: Program, name: string): CommandEntry {
  const entry = Object.hasOwn(program.commands, name) ? program.commands[name] : undefined;
  if (entry !== undefined) return entry;
  const near = nearest(name, Object.keys(program.commands));
  const what = name.startsWith("-") ? "flag" : "command";
  const hint =
    near === undefined
      ? `${program.name} --help lists the commands`
      : `did you mean ${program.name} ${near}?`;
  throw new UsageError("UNKNOWN_COMMAND", `There is no ${what} ${quoted(name)}`, { hint });
}

function rootCommand(program: Program): CommandDef {
  const summaries = Object.entries(program.commands).map(([name, entry]) => [
    name,
    defineCommand({ meta: { name, description: entry.summary } }),
  ]);
  const { name, version, description } = program;
  const root = defineCommand({
    meta: { name, version, description },
    args: {
      help: { type: "boolean", alias: "h", description: "This text; after a command, its flags" },
      version: { type: "boolean", alias: "V", description: "The version" },
    },
    subCommands: Object.assign(Object.create(null), Object.fromEntries(summaries)),
  });
  // CommandDef is invariant in its arguments, which nothing here looks at.
  return root as unknown as CommandDef;
}

async function programHelp(program: Program): Promise<string> {
  return `${await renderUsage(rootCommand(program))}\n\n${exampleText(program.example)}`;
}

async function commandHelp(program: Program, command: StrictCommand): Promise<string> {
  const usage = await renderUsage(command.citty, rootCommand(program));
  const notes = command.notes === undefined ? "" : `${command.notes}\n\n`;
  return `${usage}\n${notes}${exampleText(command.example)}`;
}

function exampleText(example: string): string {
  return `EXAMPLE\n\n${example.replaceAll(/^/gm, "  ")}\n`;
}

/** citty colours its help by its own lights; here a pipe gets none, and no line ends in blanks. */
function writeHelp(help: string, stream: NodeJS.WriteStream): void {
  const text = wantsColours(stream, process.env) ? help : stripVTControlCharacters(help);
  stream.write(text.replaceAll(/ +$/gm, ""));
}

/** A reader that goes away (`| head`) must not stop a migration. */
function ignoreBrokenPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
    });
  }
}

/** Waits until what was written has left, or FLUSH_MS_MAX: process.exit would cut it off. */
async function flush(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableLength === 0 || stream.destroyed) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, FLUSH_MS_MAX);
  stream.write("", () => resolve());
  await promise;
  clearTimeout(timer);
}
