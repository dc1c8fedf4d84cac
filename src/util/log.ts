/**
 * The one logger. consola would send its lower levels to standard output, which belongs to the JSON
 * events, so this instance reports to standard error only, above the progress line.
 *
 * Workers do not log: they return what they have to say, and main says it.
 */
import { createConsola } from "consola";
import type { ConsolaReporter, LogObject } from "consola";
import { formatWithOptions } from "node:util";
import { stderrTerminal } from "./terminal.ts";
import type { Terminal } from "./terminal.ts";

export type Verbosity = "quiet" | "normal" | "verbose";

/** consola's levels: warnings, information, debug messages. */
const LEVEL_OF: Readonly<Record<Verbosity, number>> = { quiet: 1, normal: 3, verbose: 4 };

/** Lines of consola's records on a terminal: information plain, the rest marked by a word. */
export function terminalReporter(terminal: Terminal): ConsolaReporter {
  const { paint } = terminal;
  const line = (record: LogObject): string => {
    const tag = record.tag === "" ? "" : `${record.tag}: `;
    const text = `${tag}${formatWithOptions({ compact: true }, ...record.args)}`;
    if (record.level <= 0) return `${paint.red("error:")} ${text}`;
    if (record.level === 1) return `${paint.yellow("warning:")} ${text}`;
    return record.level > 3 ? paint.dim(text) : text;
  };
  return { log: (record) => terminal.writeLines(line(record)) };
}

/** The logger of this process; `log.withTag("source")` names a part of the program. */
export const log = createConsola({
  level: LEVEL_OF.normal,
  reporters: [terminalReporter(stderrTerminal)],
  // One sentence twice within a second is two events here, not noise to fold into "(repeated)".
  throttle: 0,
});

/** How much is said: warnings only, the usual, or also why. */
export function setVerbosity(verbosity: Verbosity): void {
  log.level = LEVEL_OF[verbosity];
}
